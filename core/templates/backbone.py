"""A small residual network of convolutions at full resolution."""

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fw.core.diffusion.conditioning import ConditionEmbedding
from fw.core.kinds import Attend, Backbone
from fw.core.types import ConditionSpec
from fw.registry import hookimpl

FW_API = 2
WAVES = 16


class Example(Backbone):
    """Residual 3x3 convolutions; each block gets the noise level and the condition."""

    name: ClassVar[str] = "example"

    width: int = Field(32, ge=1, le=4096, description="channels of the hidden layers")
    blocks: int = Field(3, ge=1, le=64, description="residual blocks")

    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        return Residual(shape[0], self.width, self.blocks, condition)


class Residual(nn.Module):
    """See `fw.core.kinds.Network`."""

    def __init__(self, colours: int, width: int, blocks: int, condition: ConditionSpec | None):
        super().__init__()
        self.level = nn.Linear(2 * WAVES, width)
        self.embed = None if condition is None else ConditionEmbedding(condition, width)
        self.first = nn.Conv2d(colours, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)) for _ in range(blocks)
        )
        self.last = nn.Conv2d(width, colours, 3, padding=1)

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        condition: Tensor | None = None,
        dropped: Tensor | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        embedding = self.level(waves(noise))  # (B, width)
        if self.embed is not None:
            embedding = embedding + self.embed(condition, dropped, len(x))
        hidden = self.first(x)  # (B, width, H, W)
        for block in self.blocks:
            hidden = hidden + block(hidden + embedding[:, :, None, None])
        return self.last(hidden)  # (B, C, H, W)


def waves(noise: Tensor) -> Tensor:
    """Noise levels (B,) as cosines and sines (B, 2 * WAVES) of falling frequency (arXiv
    1706.03762, section 3.5)."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(WAVES, device=noise.device) / WAVES)
    angles = noise[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


@hookimpl
def fw_components() -> list[type[Backbone]]:
    return [Example]
