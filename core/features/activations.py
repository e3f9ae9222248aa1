"""A denoiser's activations as features, at many noise levels and blocks: choose, read, pool (arXiv
2407.00783).

A cell is one noise level and one block. All blocks are read in one pass, and a linear probe scores
each cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.taps import pooled
from fw.core.errors import FwError
from fw.core.randomness import generator

LEVELS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 2.0)
"""Noise levels that are tried unless others are given; in ratio, mostly closer where there is
more noise."""

VALIDATION = 0.2
"""The share of the training images by which cells are chosen."""

Pool = Literal["mean", "grid"]


@torch.no_grad()
def read(
    model: NetworkDenoiser,
    x0: Tensor,
    noise: Tensor,
    sigma: float,
    blocks: Sequence[str],
    pool: Pool = "mean",
) -> dict[str, Tensor]:
    """The blocks' features of images x0 (B, C, H, W) at one noise level, without a condition: (B,
    D) by block.

    They are averaged over the draws of noise (K, B, C, H, W).
    """
    total: dict[str, Tensor] = {}
    for draw in noise:
        activations = model.features(x0 + sigma * draw, x0.new_full((len(x0),), sigma), blocks)
        for block, activation in activations.items():
            vectors = flat(activation, pool, x0.shape[2] / x0.shape[3])
            total[block] = total[block] + vectors if block in total else vectors
    return {block: vectors / len(noise) for block, vectors in total.items()}


def noise_of(images: Tensor, draws: int, shape: Sequence[int]) -> Tensor:
    """Noise (draws, B, *shape) for uint8 images (B, C, H, W), on their device.

    Each image's noise is seeded by its pixels, so its features do not depend on the images beside
    it. The noise differs from image to image, because a probe could subtract noise that all images
    share.
    """
    streams = [generator("representation", image.numpy().tobytes().hex()) for image in images.cpu()]
    return torch.stack(
        [torch.randn(draws, *shape, generator=stream) for stream in streams], dim=1
    ).to(images.device)


def flat(activation: Tensor, pool: Pool, ratio: float) -> Tensor:
    """(B, C, h, w) or (B, N, D) -> the mean over positions (B, C), or for `grid` those of four
    quarters (B, 4 * C).

    `ratio` is the images' height over their width. A token that stands for no patch comes last; a
    grid leaves it out.
    """
    if pool == "mean":
        return pooled(activation)
    if activation.dim() == 3:
        activation = as_map(activation, ratio)
    return adaptive_avg_pool2d(activation, 2).flatten(1)


def as_map(tokens: Tensor, ratio: float) -> Tensor:
    """(B, N, D) -> (B, D, h, w)"""
    for count in (tokens.shape[1], tokens.shape[1] - 1):
        rows = round(math.sqrt(count * ratio))
        if rows and count % rows == 0 and abs(rows * rows - count * ratio) < 1e-3:
            return tokens[:, :count].transpose(1, 2).unflatten(2, (rows, -1))
    raise FwError(f"{tokens.shape[1]} tokens are no grid over the image: take `pool: mean`")


def split(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The numbers of the training images that a probe is fitted on, and of those by which cells
    are chosen."""
    order = torch.randperm(count, generator=generator)
    held = max(1, round(VALIDATION * count))
    return order[held:], order[:held]
