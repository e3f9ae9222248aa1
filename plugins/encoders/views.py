"""Random views of images for self-supervised learning, as batched tensor operations on any device.

Every image of a batch has its own random parameters. A local view shows a part of the image,
enlarged to full size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from fw.core.learning.rows import ALONE, Rows
from fw.core.machine.transfer import constant


class View(Protocol):
    def __call__(
        self, images: Tensor, local: bool, generator: torch.Generator, rows: Rows = ALONE
    ) -> Tensor:
        """Images (B, C, H, W) in 0..1, a generator on their device, and where they stand in the
        batch -> views of the same shape and range"""


def digit_view(
    images: Tensor, local: bool, generator: torch.Generator, rows: Rows = ALONE
) -> Tensor:
    """Small turns, shears, shifts and zooms on a black background, contrast and noise; no flips,
    no colour."""
    angle, shear, zoom, across, down, contrast, grain = uniform(
        images,
        generator,
        rows,
        (-math.radians(12), math.radians(12)),
        (-0.15, 0.15),
        (1.15, 1.6) if local else (0.9, 1.15),
        *[(-0.16, 0.16)] * 2,
        (0.7, 1.3),
        (0, 0.1),
    )
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    views = warp(images, (cos, shear * cos - sin, across), (sin, shear * sin + cos, down))
    shape = rows.everywhere(len(images)), *images.shape[1:]
    noise = rows.own(torch.randn(shape, generator=generator, device=images.device))
    return (views * contrast[:, None, None, None] + grain[:, None, None, None] * noise).clamp(0, 1)


def photo_view(
    images: Tensor, local: bool, generator: torch.Generator, rows: Rows = ALONE
) -> Tensor:
    """DINO's views of natural images (arXiv 2104.14294): resized crop, flip, colour jitter and
    grayscale."""
    area, ratio, across, down, flip = uniform(
        images,
        generator,
        rows,
        (0.1, 0.4) if local else (0.4, 1),
        (math.log(3 / 4), math.log(4 / 3)),
        *[(-1, 1)] * 3,
    )
    width = (area * ratio.exp()).sqrt().clamp(max=1)
    height = (area / ratio.exp()).sqrt().clamp(max=1)
    none = torch.zeros_like(area)
    views = warp(
        images,
        (width * flip.sign(), none, across * (1 - width)),
        (none, height, down * (1 - height)),
    )
    return jitter(views, generator, rows) if images.shape[1] == 3 else views


VIEWS: dict[str, View] = {"digits": digit_view, "photos": photo_view}

DIGITS_SIDE = 32
"""The longest side of grey images that are taken for digits or letters; MNIST's is 28."""

ABOUT = (
    "the random views. digits: small turns and shears; photos: crops that may be mirrored, of RGB "
    "also with other colours and grey; auto: digits for grey images up to 32x32, else photos"
)


def views_for(augment: str, shape: tuple[int, int, int]) -> str:
    """The name of the views of images (C, H, W): `augment`, or what `auto` is for them."""
    if augment != "auto":
        return augment
    return "digits" if like_digits(shape) else "photos"


def unsuited(name: str, augment: str, shape: tuple[int, int, int]) -> Iterator[str]:
    """A warning if an encoder's views are hardly those that images (C, H, W) need."""
    channels, height, width = shape
    if augment == "digits" and channels == 3:
        yield (
            f"encoder '{name}' has the views of digits, which keep the colours and are not "
            "mirrored: for photographs take `augment: photos`"
        )
    if augment == "photos" and like_digits(shape):
        yield (
            f"encoder '{name}' has the views of photographs, parts of an image that may be "
            f"mirrored: if these grey {height}x{width} images are digits or letters, take "
            "`augment: digits`"
        )


def like_digits(shape: tuple[int, int, int]) -> bool:
    channels, *sides = shape
    return channels == 1 and max(sides) <= DIGITS_SIDE


def uniform(
    images: Tensor, generator: torch.Generator, rows: Rows, *ranges: tuple[float, float]
) -> Tensor:
    """One random number per range and image, (ranges, B)."""
    low, high = constant(ranges, images.device).T[..., None]  # (ranges, 1) each
    count = rows.everywhere(len(images))
    drawn = torch.rand(len(ranges), count, generator=generator, device=images.device)
    return low + (high - low) * rows.own(drawn, dim=1)


def warp(images: Tensor, x_row: tuple[Tensor, ...], y_row: tuple[Tensor, ...]) -> Tensor:
    """Resample with one affine map per image, rows of (B,) numbers in units of half the image;
    black outside."""
    matrix = torch.stack([torch.stack(x_row, dim=1), torch.stack(y_row, dim=1)], dim=1)  # (B, 2, 3)
    grid = affine_grid(matrix, list(images.shape), align_corners=False)
    return grid_sample(images, grid, align_corners=False)


def jitter(images: Tensor, generator: torch.Generator, rows: Rows = ALONE) -> Tensor:
    """Brightness, contrast, saturation and hue for 80 % of the images (B, 3, H, W), grayscale
    for 20 %."""
    brightness, contrast, saturation, hue, applied, grey = uniform(
        images, generator, rows, (0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1), (0, 1), (0, 1)
    )[..., None, None, None]
    weights = constant((0.299, 0.587, 0.114), images.device)[:, None, None]
    bright = (images * brightness).clamp(0, 1)
    mean = (bright * weights).sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True)
    contrasted = (mean + contrast * (bright - mean)).clamp(0, 1)
    luma = (contrasted * weights).sum(dim=1, keepdim=True)
    coloured = (luma + saturation * turn_hue(contrasted - luma, 2 * math.pi * hue)).clamp(0, 1)
    jittered = torch.where(applied < 0.8, coloured, images)
    return torch.where(grey < 0.2, (jittered * weights).sum(dim=1, keepdim=True), jittered)


def turn_hue(chroma: Tensor, angle: Tensor) -> Tensor:
    """Rotate colour differences (B, 3, H, W) about the grey axis (1, 1, 1) by Rodrigues'
    formula."""
    normal = chroma.mean(dim=1, keepdim=True)
    crossed = (chroma.roll(1, dims=1) - chroma.roll(-1, dims=1)) / math.sqrt(3)
    return chroma * angle.cos() + crossed * angle.sin() + normal * (1 - angle.cos())
