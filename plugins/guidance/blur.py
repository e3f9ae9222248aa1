"""Gaussian blur over the last two dimensions, as guidance uses it: SEG on tokens (arXiv
2408.00760), SAG on pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad


def blurred(images: Tensor, sigma: float) -> Tensor:
    """images (B, C, H, W) convolved with a Gaussian and reflected at the borders; sigma 0 changes
    nothing.

    The kernel is SEG's: 6 sigma wide, made odd, and no wider than the image, or one more where that
    is even.
    """
    if sigma == 0:
        return images
    height, width = images.shape[2:]
    down, across = gaussian(sigma, height, images), gaussian(sigma, width, images)
    edges = [len(across) // 2] * 2 + [len(down) // 2] * 2
    planes = pad(
        images.flatten(0, 1)[:, None], edges, mode="reflect"
    )  # (B * C, 1, H + 2 * edge, W + 2 * edge)
    planes = conv2d(
        conv2d(planes, down[None, None, :, None]), across[None, None, None, :]
    )  # (B * C, 1, H, W)
    return planes.view(images.shape)


NARROWEST = 1 / 6
"""Up to this sigma the kernel is a single pixel, and blurs nothing."""


def gaussian(sigma: float, size: int, like: Tensor) -> Tensor:
    """The weights of a kernel (2 * radius + 1,) over `size` pixels."""
    radius = math.ceil(min(6 * sigma, size)) // 2
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64, device=like.device)
    weights = torch.exp(-((offsets / sigma) ** 2) / 2)
    return (weights / weights.sum()).to(like.dtype)
