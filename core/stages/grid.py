"""One picture of several images in a grid."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

GRID_PIXELS = 512
"""Small images are enlarged, without smoothing, until the grid is about this wide."""


SEPARATOR = 80
"""The grey of the lines between images, one pixel wide."""


def save_grid(images: Tensor, path: Path, columns: int = 8) -> None:
    """Write uint8 images (N, C, H, W) as one PNG, `columns` in a row."""
    from PIL import Image

    images = pad(images, (0, 1, 0, 1), value=SEPARATOR)
    rows = -(-len(images) // columns)
    _, channels, height, width = images.shape
    sheet = torch.zeros(rows * columns, channels, height, width, dtype=torch.uint8)
    sheet[: len(images)] = images
    tiled = sheet.view(rows, columns, channels, height, width).permute(
        0, 3, 1, 4, 2
    )  # (rows, H, columns, W, C)
    array = tiled.reshape(rows * height, columns * width, channels).numpy()
    picture = Image.fromarray(array.squeeze(-1) if channels == 1 else array)
    enlarge = max(1, GRID_PIXELS // (columns * width))
    picture.resize(
        (picture.width * enlarge, picture.height * enlarge), Image.Resampling.NEAREST
    ).save(path)
