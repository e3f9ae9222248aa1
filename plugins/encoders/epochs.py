"""Whether a training draws as many images as there are: defaults that suit a thousand digits may
not suit a million photographs."""

from __future__ import annotations

from collections.abc import Iterator


def too_short(name: str, steps: int, batch: int, images: int | None) -> Iterator[str]:
    """A warning if an encoder's training, at random, draws fewer than so many images; none where
    their number is not known."""
    if images is not None and steps * batch < images:
        yield (
            f"encoder '{name}' draws {steps:,} x {batch:,} = {steps * batch:,} images in its "
            f"training, fewer than the {images:,} that there are: more `steps`, or a larger `batch`"
        )
