"""The parts of the diffusion transformer: patches, their positions, and blocks with adaLN-zero
(arXiv 2212.09748).

Section 3.2 and figure 3 of the paper; weights start as there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from fw.core.kinds import Attend

WAVES = 128
INITIAL_STD = 0.02


def check_sizes(width: int, heads: int) -> None:
    """Raise ValueError if tokens of this width cannot be divided among heads or given positions."""
    if width % heads:
        raise ValueError(f"width {width} is not a multiple of heads {heads}")
    if width % 4:
        raise ValueError(
            f"width {width} is not a multiple of 4, which the position embedding needs"
        )


def check_patches(name: str, patch: int, shape: tuple[int, int, int]) -> None:
    """Raise ValueError, in the network's name, if patches do not divide images (C, H, W)."""
    _, height, width = shape
    if height % patch or width % patch:
        raise ValueError(
            f"{name} with patches of {patch}x{patch} needs images whose sides are multiples of "
            f"{patch}, and these are {height}x{width}: take another `patch`, or another image size"
        )


def patchify(x: Tensor, patch: int) -> Tensor:
    """Images to tokens, row by row: (B, C, H, W) -> (B, N, patch * patch * C)."""
    x = x.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # (B, C, rows, patch, columns, patch)
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(tokens: Tensor, patch: int, rows: int) -> Tensor:
    """The inverse of `patchify`: (B, N, patch * patch * C) -> (B, C, H, W)."""
    x = tokens.unflatten(2, (patch, patch, -1)).unflatten(
        1, (rows, -1)
    )  # (B, rows, columns, patch, patch, C)
    return x.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def positions(rows: int, columns: int, width: int) -> Tensor:
    """The positions of the tokens, (rows * columns, width): half the channels are for the column,
    half for the row."""
    column, row = torch.arange(columns).repeat(rows), torch.arange(rows).repeat_interleave(columns)
    return torch.cat([waves(column, width // 4), waves(row, width // 4)], dim=1)


def waves(values: Tensor, count: int) -> Tensor:
    """Numbers (n,) as sines and cosines (n, 2 * count) of falling frequency (arXiv 1706.03762,
    section 3.5)."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(count, device=values.device) / count)
    angles = values[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class LevelEmbedding(nn.Module):
    """Noise levels (B,) to vectors (B, width)."""

    def __init__(self, width: int):
        super().__init__()
        self.first = linear(2 * WAVES, width)
        self.last = linear(width, width)
        for layer in (self.first, self.last):
            nn.init.normal_(layer.weight, std=INITIAL_STD)

    def forward(self, noise: Tensor) -> Tensor:
        return self.last(silu(self.first(waves(noise, WAVES))))


class Block(nn.Module):
    """Attention, then an MLP, both shifted, scaled and gated by the conditioning.

    A `crossed` block attends to the tokens of a condition in between (as PixArt's, arXiv
    2310.00426, section 2.3).
    """

    def __init__(self, width: int, heads: int, crossed: bool = False):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = SelfAttention(width, heads)
        self.mlp = nn.Sequential(
            linear(width, 4 * width), nn.GELU("tanh"), linear(4 * width, width)
        )
        self.modulation = zero_linear(width, 6 * width)
        self.cross = CrossAttention(width, heads) if crossed else None

    def forward(
        self,
        tokens: Tensor,
        conditioning: Tensor,
        attend: Attend,
        layer: str,
        context: Tensor | None = None,
    ) -> Tensor:
        """tokens (B, N, width), conditioning (B, width), context (B, n, width) -> (B, N, width)"""
        modulation = self.modulation(conditioning)[:, None]  # (B, 1, 6 * width)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation.chunk(6, dim=2)
        tokens = tokens + gate * self.attention(
            self.norm(tokens) * (1 + scale) + shift, attend, layer
        )
        if self.cross is not None:
            tokens = tokens + self.cross(self.norm(tokens), context)
        return tokens + mlp_gate * self.mlp(self.norm(tokens) * (1 + mlp_scale) + mlp_shift)


class SelfAttention(nn.Module):
    """Multi-head self-attention with its mixing step left open."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = linear(width, 3 * width)
        self.out = linear(width, width)

    def forward(self, tokens: Tensor, attend: Attend, layer: str) -> Tensor:
        """(B, N, width) -> (B, N, width)"""
        split = self.qkv(tokens).unflatten(2, (3, self.heads, -1))  # (B, N, 3, heads, d)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind()  # (B, heads, N, d)
        mixed = attend(query, key, value, layer)
        return self.out(mixed.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Multi-head attention of an image's tokens to those of its condition; zero at first.

    It does not go through `attend`: guidance perturbs self-attention alone.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = linear(width, width)
        self.key_value = linear(width, 2 * width)
        self.out = zero_linear(width, width)

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        """tokens (B, N, width), context (B, n, width) -> (B, N, width)"""
        query = (
            self.query(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
        )  # (B, heads, N, d)
        split = self.key_value(context).unflatten(2, (2, self.heads, -1))  # (B, n, 2, heads, d)
        key, value = split.permute(2, 0, 3, 1, 4).unbind()  # (B, heads, n, d)
        mixed = scaled_dot_product_attention(query, key, value)  # (B, heads, N, d)
        return self.out(mixed.transpose(1, 2).flatten(2))


class FinalLayer(nn.Module):
    """Tokens to pixels: (B, N, width) -> (B, N, pixels), zero at first."""

    def __init__(self, width: int, pixels: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = zero_linear(width, 2 * width)
        self.out = zero_linear(width, pixels)

    def forward(self, tokens: Tensor, conditioning: Tensor) -> Tensor:
        shift, scale = self.modulation(conditioning)[:, None].chunk(2, dim=2)  # (B, 1, width)
        return self.out(self.norm(tokens) * (1 + scale) + shift)


def linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
