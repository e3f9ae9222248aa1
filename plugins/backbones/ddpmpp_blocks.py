"""The parts of DDPM++ (arXiv 2011.13456, appendix H): residual blocks like BigGAN's, which also
resample, with attention of one head.

What a block or a layer of attention adds is zero at first; all other weights start by Glorot's
rule, those of attention's inputs with a tenth of its variance, as in the code of the paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, silu

from fw.core.kinds import Attend

HALVED = math.sqrt(0.5)
"""The sum of two signals of variance 1, times this, has variance 1."""

Resample = Callable[[Tensor], Tensor]


class Block(nn.Module):
    """(B, inputs, H, W) to (B, outputs, h, w): two convolutions, the noise level added in between.

    A block that resamples does so before the first of them. `layer` is the name of its layer of
    attention, None without one.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding_width: int,
        dropout: float,
        resample: Resample | None = None,
        layer: str | None = None,
    ):
        super().__init__()
        self.outputs = outputs
        self.resample = resample
        self.norm = norm(inputs)
        self.first = convolution(inputs, outputs)
        self.shift = linear(embedding_width, outputs)
        self.inner_norm = norm(outputs)
        self.dropout = nn.Dropout(dropout)
        self.second = convolution(outputs, outputs, variance=0)
        changed = resample is not None or inputs != outputs
        self.skip = convolution(inputs, outputs, side=1) if changed else nn.Identity()
        self.attention = None if layer is None else Attention(outputs, layer)

    def forward(self, x: Tensor, embedding: Tensor, attend: Attend) -> Tensor:
        """x (B, inputs, H, W), embedding (B, embedding_width) -> (B, outputs, h, w)"""
        hidden = silu(self.norm(x))
        if self.resample is not None:
            x, hidden = self.resample(x), self.resample(hidden)
        hidden = self.first(hidden) + self.shift(embedding)[:, :, None, None]
        hidden = self.second(self.dropout(silu(self.inner_norm(hidden))))
        x = HALVED * (self.skip(x) + hidden)
        return x if self.attention is None else self.attention(x, attend)


class Middle(nn.ModuleList):
    """Blocks one after the other: (B, C, h, w) to the same."""

    def forward(self, x: Tensor, embedding: Tensor, attend: Attend) -> Tensor:
        for block in self:
            x = block(x, embedding, attend)
        return x


class Down(nn.ModuleList):
    """A level of the encoder. It returns what its last block returns, and what all of them do."""

    def forward(self, x: Tensor, embedding: Tensor, attend: Attend) -> tuple[Tensor, list[Tensor]]:
        outputs = []
        for block in self:
            x = block(x, embedding, attend)
            outputs.append(x)
        return x, outputs


class Up(nn.Module):
    """A level of the decoder: `larger` doubles the sides, and each of the blocks also gets what a
    block of the encoder returned, the latest first."""

    def __init__(self, larger: Block | None, blocks: Sequence[Block]):
        super().__init__()
        self.larger = larger
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, skips: list[Tensor], embedding: Tensor, attend: Attend) -> Tensor:
        if self.larger is not None:
            x = self.larger(x, embedding, attend)
        for block, skip in zip(self.blocks, reversed(skips), strict=True):
            x = block(torch.cat([x, skip], dim=1), embedding, attend)
        return x


class Attention(nn.Module):
    """Self-attention of one head among pixels, (B, width, H, W) to the same."""

    def __init__(self, width: int, layer: str):
        super().__init__()
        self.layer = layer
        self.norm = norm(width)
        self.query, self.key, self.value = (linear(width, width, variance=0.1) for _ in range(3))
        self.out = linear(width, width, variance=0)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)[:, None]  # (B, 1, H * W, width)
        mixed = attend(self.query(tokens), self.key(tokens), self.value(tokens), self.layer)
        hidden = self.out(mixed[:, 0]).transpose(1, 2).unflatten(2, x.shape[2:])
        return HALVED * (x + hidden)


def half(x: Tensor) -> Tensor:
    """Means of 2x2 pixels: (B, C, H, W) -> (B, C, H / 2, W / 2)."""
    return avg_pool2d(x, 2)


def double(x: Tensor) -> Tensor:
    """Every pixel four times: (B, C, H, W) -> (B, C, 2 H, 2 W)."""
    return interpolate(x, scale_factor=2, mode="nearest")


def waves(noise: Tensor, width: int) -> Tensor:
    """Noise levels (B,) as sines and cosines (B, width), of frequencies from 1 to 1 / 10000."""
    exponents = torch.linspace(0, 1, width // 2, device=noise.device)
    angles = noise[:, None] * 10_000**-exponents
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def norm(width: int) -> nn.Module:
    """A group norm of at most 32 groups, of at least 4 channels each."""
    groups = next(count for count in range(min(32, width // 4), 0, -1) if width % count == 0)
    return nn.GroupNorm(groups, width, eps=1e-6)


def convolution(inputs: int, outputs: int, side: int = 3, variance: float = 1.0) -> nn.Module:
    """`variance` is that of the weights, as a share of Glorot's."""
    return started(nn.Conv2d(inputs, outputs, side, padding=side // 2), variance)


def linear(inputs: int, outputs: int, variance: float = 1.0) -> nn.Module:
    """`variance` is that of the weights, as a share of Glorot's."""
    return started(nn.Linear(inputs, outputs), variance)


def started(layer: nn.Linear | nn.Conv2d, variance: float) -> nn.Module:
    nn.init.xavier_uniform_(layer.weight, gain=math.sqrt(variance))
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
