"""What a network with levels asks of its settings and its images: each level halves the image."""

from __future__ import annotations

from collections.abc import Sequence


def check_attention(attention: Sequence[int], levels: int, field: str) -> None:
    """Raise ValueError if there is attention at a level that `field` does not make."""
    for level in attention:
        if level >= levels:
            raise ValueError(
                f"attention at level {level}, but {field} has levels 0 to {levels - 1}"
            )


def check_halving(name: str, levels: int, field: str, shape: tuple[int, int, int]) -> None:
    """Raise ValueError, in the network's name, if images (C, H, W) cannot be halved often enough;
    `field` is what makes the levels."""
    _, height, width = shape
    smallest = 2 ** (levels - 1)
    if height % smallest or width % smallest:
        raise ValueError(
            f"{name} with {levels} levels needs images whose sides are multiples of {smallest}, "
            f"and these are {height}x{width}: take fewer entries in `{field}`, or another image "
            "size"
        )
