"""Pixels as features: the control that shows what a learned representation adds."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from fw.core.diffusion.pixels import to_unit
from fw.core.kinds import Encoder


class Pixels(Encoder):
    """The flattened pixels in -1..1; nothing is fitted."""

    name: ClassVar[str] = "pixels"
    control: ClassVar[bool] = True

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        return FlatPixels()


class FlatPixels(nn.Module):
    """uint8 (B, C, H, W) to float (B, C * H * W)"""

    def forward(self, images: Tensor) -> Tensor:
        return to_unit(images).flatten(1)
