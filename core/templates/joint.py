"""A small network that denoises and recognises: a shared trunk of convolutions with two heads."""

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fw.core.kinds import Attend, Joint
from fw.core.types import ConditionSpec
from fw.registry import hookimpl

FW_API = 2
WAVES = 16


class Example(Joint):
    """A trunk of residual 3x3 convolutions; one head predicts, the other classifies the trunk's
    mean over pixels."""

    name: ClassVar[str] = "example"

    width: int = Field(32, ge=1, le=4096, description="channels of the trunk")
    blocks: int = Field(3, ge=1, le=64, description="residual blocks of the trunk")

    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> "TwoHeads":
        return TwoHeads(shape[0], self.width, self.blocks, condition)


class TwoHeads(nn.Module):
    """See `fw.core.kinds.JointNetwork`. Built without a condition it has no head to recognise
    with."""

    def __init__(self, colours: int, width: int, blocks: int, condition: ConditionSpec | None):
        super().__init__()
        self.level = nn.Linear(2 * WAVES, width)
        self.first = nn.Conv2d(colours, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)) for _ in range(blocks)
        )
        self.denoise = nn.Conv2d(width, colours, 3, padding=1)
        self.recognise = None if condition is None else nn.Linear(width, condition.size)

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        condition: Tensor | None = None,
        dropped: Tensor | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        return self.denoise(self.trunk(x, noise))  # (B, C, H, W)

    def both(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.trunk(x, noise)
        return self.denoise(hidden), self.classify(hidden)  # (B, C, H, W), (B, K)

    def logits(self, x: Tensor, noise: Tensor) -> Tensor:
        return self.classify(self.trunk(x, noise))  # (B, K)

    def trunk(self, x: Tensor, noise: Tensor) -> Tensor:
        hidden = self.first(x)  # (B, width, H, W)
        level = self.level(waves(noise))  # (B, width)
        for block in self.blocks:
            hidden = hidden + block(hidden + level[:, :, None, None])
        return hidden

    def classify(self, hidden: Tensor) -> Tensor:
        if self.recognise is None:
            raise ValueError("this network was built without classes, so it has no logits")
        return self.recognise(hidden.mean(dim=(2, 3)))


def waves(noise: Tensor) -> Tensor:
    """Noise levels (B,) as cosines and sines (B, 2 * WAVES) of falling frequency (arXiv
    1706.03762, section 3.5)."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(WAVES, device=noise.device) / WAVES)
    angles = noise[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


@hookimpl
def fw_components() -> list[type[Joint]]:
    return [Example]
