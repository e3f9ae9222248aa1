"""Images as parts of the page: small sheets, written into it as data."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

EXACT = 32
"""Images of so many pixels a side or fewer are kept to the bit, and enlarged by the browser."""

LARGEST = 96
"""Larger ones are made smaller than this, and lose what nobody sees."""

QUALITY = 85

QUICK, THOROUGH = 1, 4
"""How long WebP tries, of 0 to 6. Lossless, more is 200 times slower and no smaller."""


class Picture(NamedTuple):
    """The address of a picture that is its content, its size in images, and whether these are
    enlarged pixel by pixel."""

    address: str
    columns: int
    rows: int
    exact: bool


def sheet(images: Tensor, columns: int, largest: int = LARGEST) -> Picture:
    """uint8 images (n, C, H, W) row by row in one picture, with a gap of nothing between them."""
    from PIL import Image

    images = smaller(images, largest)
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    gap = max(1, width // 16)
    see_through = torch.full((count, 1, height, width), 255, dtype=torch.uint8)
    tiles = pad(torch.cat([images, see_through], dim=1), (0, gap, 0, gap))
    every = tiles.new_zeros(rows * columns, *tiles.shape[1:])
    every[:count] = tiles
    array = (
        every.view(rows, columns, channels + 1, height + gap, width + gap)
        .permute(0, 3, 1, 4, 2)
        .reshape(rows * (height + gap), columns * (width + gap), channels + 1)[:-gap, :-gap]
        .contiguous()
        .numpy()
    )
    file = io.BytesIO()
    picture = Image.fromarray(array, "LA" if channels == 1 else "RGBA").convert("RGBA")
    exact = max(height, width) <= EXACT
    picture.save(file, "WEBP", lossless=exact, quality=QUALITY, method=QUICK if exact else THOROUGH)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return Picture(f"data:image/webp;base64,{data}", columns, rows, exact)


def smaller(images: Tensor, largest: int) -> Tensor:
    """The images with at most so many pixels a side."""
    side = max(images.shape[-2:])
    if side <= largest:
        return images
    size = [max(1, round(each * largest / side)) for each in images.shape[-2:]]
    floats = torch.nn.functional.interpolate(images.float(), size, mode="area")
    return floats.round().to(torch.uint8)
