"""The inputs of a stage of which there may be several."""

from __future__ import annotations


def target_role(number: int) -> str:
    """The input of a train stage that holds the features which the objective of this number asked for."""
    return f"target {number}"


def sibling_role(number: int) -> str:
    """The input of a sample stage that holds the network which the guidance mode of this number asked for."""
    return f"sibling {number}"
