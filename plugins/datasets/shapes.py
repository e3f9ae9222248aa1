"""Synthetic coloured shapes with known factors, of any size and number, drawn by signed
distances."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from fw.core.files.cache import cache_folder
from fw.core.files.stacked import HELD, stacked
from fw.core.kinds import Dataset
from fw.core.randomness import generator
from fw.core.types import ImageSet, Split

MOST_BYTES = 2**40

CHUNK = 256
"""Images that share one stream of random numbers: an image depends on its number, not on how
many there are."""


class Shapes(Dataset):
    """One coloured shape per image on a textured background, (N, 3, size, size).

    The label is `shape * colours + colour`: shape is one of circle, square, triangle, cross and
    ring, colour is one of `colours` evenly spaced hues. Position, scale, rotation, exact hue,
    saturation, brightness and background vary.
    """

    name: ClassVar[str] = "shapes"
    version: ClassVar[int] = 2

    size: int = Field(32, ge=8, le=4096, description="height and width in pixels")
    count: int = Field(10_000, ge=1, description="training images")
    held_out_count: int = Field(2_000, ge=1, description="test images")
    shapes: int = Field(
        5,
        ge=1,
        le=5,
        description="how many of circle, square, triangle, cross, ring, in this order",
    )
    colours: int = Field(5, ge=1, le=12, description="how many hues")
    seed: int = Field(
        0, description="the dataset's own seed; the run's seed does not change the images"
    )

    @model_validator(mode="after")
    def _holdable(self) -> Self:
        taken = 3 * self.size**2 * max(self.count, self.held_out_count)
        if taken > MOST_BYTES:
            raise ValueError(f"the images would take {taken / 1e12:,.1f} TB: fewer or smaller ones")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3, self.size, self.size

    @property
    def classes(self) -> int:
        return self.shapes * self.colours

    def how_many(self, split: Split) -> int:
        return self.count if split == "train" else self.held_out_count

    @property
    def class_names(self) -> list[str]:
        return [
            f"{shape.__name__} {hue}"
            for shape in DISTANCES[: self.shapes]
            for hue in range(self.colours)
        ]

    def load(self, split: Split) -> ImageSet:
        count = self.how_many(split)
        labels: list[Tensor] = []

        def drawn() -> Iterator[Tensor]:
            for number in range(math.ceil(count / CHUNK)):
                images, own = self._chunk(split, number)
                labels.append(own)
                yield images[: count - number * CHUNK]

        folder = cache_folder()
        if count * math.prod(self.shape) > HELD:
            folder.mkdir(parents=True, exist_ok=True)
        images = stacked(drawn(), folder)
        return ImageSet(images, torch.cat(labels)[:count], self.classes)

    def _chunk(self, split: Split, number: int) -> tuple[Tensor, Tensor]:
        """Images (CHUNK, 3, size, size) and their labels (CHUNK,)."""
        stream = generator("shapes", self.seed, split, number)
        labels = torch.randint(self.classes, (CHUNK,), generator=stream)
        shape, colour = labels // self.colours, labels % self.colours
        hue = (colour + between(-0.2, 0.2, stream)) / self.colours
        inside = coverage(shape, self.size, stream)  # (CHUNK, size, size)
        ink = rgb(hue, between(0.6, 1, stream), between(0.7, 1, stream))
        ground = background(self.size, stream)
        images = ground + inside[:, None] * (ink[:, :, None, None] - ground)
        return (images * 255).round().to(torch.uint8), labels


def between(low: float, high: float, stream: torch.Generator) -> Tensor:
    """One uniform random number per image, (CHUNK,)."""
    return low + (high - low) * torch.rand(CHUNK, generator=stream)


def coverage(shape: Tensor, size: int, stream: torch.Generator) -> Tensor:
    """How much of each pixel the shape covers, (CHUNK, size, size) in 0..1: anti-aliased over
    one pixel."""
    scale = between(0.18, 0.34, stream)
    room = 0.5 - REACH * scale
    across, down = (0.5 + room * between(-1, 1, stream) for _ in range(2))
    angle = between(0, 2 * math.pi, stream)
    x, y = grid(size, angle, across, down)
    x, y = x / scale[:, None, None], y / scale[:, None, None]
    distance = torch.empty_like(x)
    for index, signed_distance in enumerate(DISTANCES):
        chosen = shape == index
        distance[chosen] = signed_distance(x[chosen], y[chosen])
    pixels = distance * scale[:, None, None] * size
    return (0.5 - pixels).clamp(0, 1)


def grid(
    size: int, angle: Tensor, across: Tensor | float, down: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Pixel centres in a frame turned by `angle` about (across, down), in image widths; each
    (CHUNK, size, size)."""
    axis = (torch.arange(size) + 0.5) / size
    x = axis - torch.as_tensor(across).reshape(-1, 1, 1)  # (CHUNK or 1, 1, size)
    y = axis[:, None] - torch.as_tensor(down).reshape(-1, 1, 1)  # (CHUNK or 1, size, 1)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return cos * x + sin * y, cos * y - sin * x


def circle(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) - 1


def square(x: Tensor, y: Tensor) -> Tensor:
    return rectangle(x, y, 0.85, 0.85)


def triangle(x: Tensor, y: Tensor) -> Tensor:
    """The largest distance to three sides, 120 degrees apart and 0.6 from the centre."""
    slanted = 0.5 * y + math.sqrt(0.75) * x.abs()
    return torch.maximum(-y, slanted) - 0.6


def cross(x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(rectangle(x, y, 1.05, 0.35), rectangle(x, y, 0.35, 1.05))


def ring(x: Tensor, y: Tensor) -> Tensor:
    return (torch.hypot(x, y) - 0.75).abs() - 0.25


def rectangle(x: Tensor, y: Tensor, width: float, height: float) -> Tensor:
    """The larger of the distances to the sides; it is exact except outside the corners."""
    return torch.maximum(x.abs() - width, y.abs() - height)


DISTANCES = (circle, square, triangle, cross, ring)

REACH = 1.21
"""No shape of scale 1 extends further from its centre."""


def background(size: int, stream: torch.Generator) -> Tensor:
    """Tinted stripes on a brightness slope, (CHUNK, 3, size, size) in 0..1, darker than any
    shape."""
    tint = rgb(between(0, 1, stream), between(0, 0.3, stream), between(0.1, 0.4, stream))
    x, y = grid(size, between(0, 2 * math.pi, stream), 0.5, 0.5)
    slope, strength, frequency, phase = (
        between(low, high, stream)[:, None, None]
        for low, high in ((-0.4, 0.4), (0, 0.3), (1, 4), (0, 2 * math.pi))
    )
    light = 1 + slope * x + strength * torch.sin(2 * math.pi * frequency * y + phase)
    return (tint[:, :, None, None] * light[:, None]).clamp(0, 1)


def rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """HSV in 0..1 (the hue wraps) to RGB, (CHUNK, 3)."""
    sector = (torch.tensor([5.0, 3.0, 1.0]) + 6 * hue[:, None]) % 6  # (CHUNK, 3)
    shade = torch.minimum(sector, 4 - sector).clamp(0, 1)
    return value[:, None] * (1 - saturation[:, None] * shade)
