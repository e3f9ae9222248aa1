"""Refuse networks that no machine can hold, before they are built."""

from __future__ import annotations

MOST_WEIGHTS = 50_000_000_000
"""200 GB in float32, and four times that while it is trained."""


def check_weights(who: str, count: float) -> None:
    """Raise ValueError if a network has more weights than there can be room for; `count` need
    not be exact."""
    if count > MOST_WEIGHTS:
        raise ValueError(
            f"{who} would have about {count:.0e} weights, which are {4 * count / 1e12:,.1f} TB: "
            "make it narrower or less deep"
        )
