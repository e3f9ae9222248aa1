"""Rescaled guidance (Lin et al., arXiv 2305.08891, equations 15 and 16)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fw.core.kinds import Rule


class Rescale(Rule):
    """Rescaled guidance (arXiv 2305.08891): the guided prediction gets the contrast that it had
    without guidance.

    phi * guided * std(good) / std(guided) + (1 - phi) * guided, with standard deviations over an
    image. The paper takes 0.7 at a scale of 7.5; 0 changes no bit.

    The paper rescales its network's prediction, v; others rescale eps. Here it is always x0, where
    overexposure shows, so that it means the same whatever the network predicts. In pure noise v is
    -x0 and both agree; at lower levels they differ.
    """

    name: ClassVar[str] = "rescale"

    phi: float = Field(0.7, ge=0, le=1, description="how much is rescaled; 0 is off")

    def idle(self) -> str | None:
        return "phi 0 leaves the guided prediction as it is" if self.phi == 0 else None

    def result(self, good: Tensor, guided: Tensor) -> Tensor:
        target, actual = deviation(good), deviation(guided)
        ratio = torch.where(actual > 0, target / actual, 1)  # (B, 1, 1, 1)
        return guided * torch.lerp(torch.ones_like(ratio), ratio, self.phi)


def deviation(images: Tensor) -> Tensor:
    """Standard deviations (B, 1, 1, 1) of images (B, C, H, W)."""
    return images.std(dim=(1, 2, 3), correction=0, keepdim=True)
