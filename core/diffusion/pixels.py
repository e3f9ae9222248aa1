"""Images as the diffusion sees them, and back."""

from __future__ import annotations

import torch
from torch import Tensor


def to_unit(images: Tensor) -> Tensor:
    """uint8 0..255 to -1..1, of torch's default type."""
    return images.to(torch.get_default_dtype()) / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """float -1..1 to uint8 0..255, clamped and rounded to the nearest level."""
    return (x.float().clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)


def per_image(values: Tensor) -> Tensor:
    """(B,) to (B, 1, 1, 1)"""
    return values[:, None, None, None]
