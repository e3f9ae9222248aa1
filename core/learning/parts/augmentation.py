"""Augmentation that does not leak (EDM, arXiv 2206.00364, appendix F.2 and its table of
transforms).

Images are mirrored, scaled, turned, stretched and shifted at random, and the network is given how.
All zeros say that an image is as it was, and samples are drawn with zeros: so the network learns
from transformed images and makes none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from fw.core.diffusion.pixels import per_image
from fw.core.kinds import Backbone
from fw.core.learning.batches import Batch
from fw.core.learning.loop import Step
from fw.core.learning.parts.part import Part, Training
from fw.core.learning.warp import warped
from fw.core.machine.transfer import sent

SIZE = 9
"""How many numbers say how an image was transformed."""

SCALE = ANISOTROPY = 2**0.2
SHIFT = 1 / 8
"""The paper's A_scale, A_aniso and A_trans: a shift of one standard deviation is an eighth of the
image."""


def check_takes(model: Backbone) -> None:
    """ValueError if the network cannot be given how its images were transformed."""
    if model.augmentation_size != SIZE:
        raise ValueError(
            f"augment needs a network that is given how its images were transformed, and "
            f"backbone '{model.name}' takes no such condition (ddpmpp does)"
        )


class Augmentation(Part):
    """Transforms the images of a batch, and says how. Each kind of transform but mirroring, which
    is always drawn, is applied with `probability`."""

    def __init__(self, probability: float):
        self.probability = probability

    def join(self, training: Training) -> None:
        self.job = training.job

    def begin(self, batch: Batch, step: Step) -> None:
        draw = self.job.generator("augmentation", step.number)
        transforms = draw_transforms(batch.count, self.probability, draw)
        transforms = transforms.each(self.job.team.own)
        batch.x0 = transforms(batch.x0)
        batch.augmentation = sent(transforms.label, batch.x0.device)


@dataclass(frozen=True)
class Transforms:
    """One transform per image, by the eight parameters of the paper, each (B,); 0 is off. On the
    CPU, where a GPU need not be asked which images are to be resampled."""

    mirror_x: Tensor
    """a_0, 0 or 1."""
    mirror_y: Tensor
    """a_1, 0 or 1."""
    scale: Tensor
    """a_2: by SCALE to this power."""
    turn: Tensor
    """a_3: counter-clockwise, in radians."""
    axis: Tensor
    """a_4: the direction that is stretched, in radians from the x axis."""
    stretch: Tensor
    """a_5: by ANISOTROPY to this power, and shrunk as much across."""
    shift_x: Tensor
    """a_6: to the right, in eighths of the width."""
    shift_y: Tensor
    """a_7: down, in eighths of the height."""

    def each(self, cut: Callable[[Tensor], Tensor]) -> Transforms:
        """Those of some of the images, by what cuts their parameters."""
        return Transforms(*(cut(getattr(self, each.name)) for each in fields(self)))

    @property
    def label(self) -> Tensor:
        """What the network is given, (B, 9)."""
        return torch.stack(
            [
                self.mirror_x,
                self.mirror_y,
                self.scale,
                self.turn.cos() - 1,
                self.turn.sin(),
                self.stretch * self.axis.cos(),
                self.stretch * self.axis.sin(),
                self.shift_x,
                self.shift_y,
            ],
            dim=1,
        )

    @property
    def resampled(self) -> Tensor:
        """Which images are more than mirrored, bool (B,)."""
        moves = (self.scale, self.turn, self.stretch, self.shift_x, self.shift_y)
        return torch.stack(moves).ne(0).any(dim=0)

    def __call__(self, images: Tensor) -> Tensor:
        """The transformed images (B, C, H, W). Those that are only mirrored, or not at all, keep
        their exact values."""
        for mirror, side in ((self.mirror_x, -1), (self.mirror_y, -2)):
            mirrored = sent(per_image(mirror.bool()), images.device)
            images = torch.where(mirrored, images.flip(side), images)
        rows = self.resampled.nonzero().flatten()
        if not len(rows):
            return images
        linear, shift = self._linear()[rows], self._shift(images)[rows]
        rows = sent(rows, images.device)
        return images.index_copy(0, rows, warped(images[rows], linear, shift))

    def _linear(self) -> Tensor:
        """Scaling, then turning, then stretching: (B, 2, 2)"""
        size = SCALE**self.scale
        longer = ANISOTROPY**self.stretch
        stretched = rotation(self.axis) @ diagonal(longer, 1 / longer) @ rotation(-self.axis)
        return stretched @ rotation(-self.turn) @ diagonal(size, size)

    def _shift(self, images: Tensor) -> Tensor:
        """In pixels, (B, 2)."""
        height, width = images.shape[2:]
        return SHIFT * torch.stack([width * self.shift_x, height * self.shift_y], dim=1)


def draw_transforms(count: int, probability: float, draw: torch.Generator) -> Transforms:
    """The paper's distributions. The parameters of a transform that is not applied are 0."""

    def uniform() -> Tensor:
        return torch.rand(count, generator=draw)

    def normal() -> Tensor:
        return torch.randn(count, generator=draw)

    def applied() -> Tensor:
        return uniform() < probability

    def angle() -> Tensor:
        return math.pi * (2 * uniform() - 1)

    mirror_x = (uniform() < 0.5).float()
    mirror_y = applied() * (uniform() < 0.5)
    scale = applied() * normal()
    turn = applied() * angle()
    stretched = applied()
    axis, stretch = stretched * angle(), stretched * normal()
    shifted = applied()
    shift_x, shift_y = shifted * normal(), shifted * normal()
    return Transforms(mirror_x, mirror_y.float(), scale, turn, axis, stretch, shift_x, shift_y)


def rotation(angle: Tensor) -> Tensor:
    """By angles (B,), from the x axis to the y axis: (B, 2, 2)"""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], dim=1), torch.stack([sin, cos], dim=1)], dim=1)


def diagonal(x: Tensor, y: Tensor) -> Tensor:
    """(B, 2, 2)"""
    return torch.diag_embed(torch.stack([x, y], dim=1))
