"""Adaptive projected guidance (Sadat et al., arXiv 2410.02416, algorithm 1)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from fw.core.kinds import Rule
from fw.core.types import LARGEST

PER_IMAGE = (1, 2, 3)
"""C, H and W: lengths and projections are each image's own."""


class APG(Rule):
    """Adaptive projected guidance (arXiv 2410.02416): high scales that do not oversaturate.

    Three things happen to a mode's difference before it is scaled, in this order. Its running sum
    over earlier noise levels is added, times `momentum` (negative: it is pushed away from where it
    went). It is shortened to `norm`. Of its part along the good prediction, which adds contrast,
    the share `eta` is kept. The paper's w, in D_c + (w - 1) difference, is the mode's scale, its
    beta is momentum and its r is norm. The paper takes momentum -0.5 to -0.75, eta 0, and r 2.5 to
    15 in latents.

    All of this is done to x0, as in the paper; on predictions of noise it would mean something
    else. The momentum advances with every call, so in a second-order sampler twice a step, and only
    where the mode is active. momentum 0, norm null and eta 1 change no bit.
    """

    name: ClassVar[str] = "apg"

    momentum: float = Field(
        -0.5, gt=-1, lt=1, description="share of earlier differences that is added; 0 is none"
    )
    norm: float | None = Field(
        None,
        gt=0,
        description="longest difference, the L2 norm over an image in -1..1; null is any",
    )
    eta: float = Field(
        0.0,
        ge=0,
        le=LARGEST,
        description="share that is kept of the part along the good prediction",
    )

    def idle(self) -> str | None:
        neutral = self.momentum == 0 and self.norm is None and self.eta == 1
        return (
            "momentum 0, norm null and eta 1 leave every difference as it is" if neutral else None
        )

    def direction(self, good: Tensor, difference: Tensor, memory: dict[str, Tensor]) -> Tensor:
        if self.momentum != 0:
            if "average" in memory:
                difference = difference + self.momentum * memory["average"]
            memory["average"] = difference
        if self.norm is not None:
            length = difference.square().sum(dim=PER_IMAGE, keepdim=True).sqrt()  # (B, 1, 1, 1)
            difference = difference * (self.norm / length).clamp(max=1)
        return difference - (1 - self.eta) * parallel(difference, good)


def parallel(difference: Tensor, good: Tensor) -> Tensor:
    """The part (B, C, H, W) of each difference that lies along its prediction; zero where that
    is zero."""
    along = (difference * good).sum(dim=PER_IMAGE, keepdim=True)  # (B, 1, 1, 1)
    length = good.square().sum(dim=PER_IMAGE, keepdim=True)  # (B, 1, 1, 1)
    return along / length.clamp(min=1e-12) * good
