"""What features have to be before they are compared: finite, enough and, in custom spaces, of unit scale."""

from __future__ import annotations

import torch
from torch import Tensor

from fw.core.errors import StageFailed

ROWS = 1000
"""Rows of a distance matrix that are held at once."""


def checked(features: Tensor, at_least: int, of: str) -> Tensor:
    """The features (n, D) as float64; StageFailed if any is not finite or if there are fewer than `at_least`."""
    if len(features) < at_least:
        raise StageFailed(f"{len(features)} {of} are too few for this metric, it needs at least {at_least}")
    wrong = int((~torch.isfinite(features)).any(dim=1).sum())
    if wrong:
        raise StageFailed(f"the features of {wrong} of {len(features)} {of} are not finite, so they cannot be compared")
    return features.double()


def standardised(reference: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets, less the reference's mean and over its one global scale sqrt(tr(cov) / D).

    One scale for all dimensions keeps the geometry of the space, and makes values of different spaces comparable in
    size; KID's kernel (x.y / D + 1)^3 needs it.
    """
    scale = reference.var(dim=0).mean().sqrt()
    if not scale > 0:
        raise StageFailed("the features of all real images are equal: this space cannot tell images apart")
    mean = reference.mean(dim=0)
    return (reference - mean) / scale, (fake - mean) / scale
