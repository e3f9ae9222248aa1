"""DreamTeacher: a student learns maps of several levels of a generator's decoder (Li et al., arXiv
2307.07487).

This is its feature distillation, after descriptions of the paper; no code of the authors was found.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, layer_norm, mse_loss, normalize

from fw.core.diffusion.taps import blocks_of
from fw.core.features.activations import as_map
from fw.core.types import LARGEST
from fw.plugins.encoders.distilled import Distilled, Lesson, Teacher, levels_of
from fw.plugins.encoders.of_denoiser import Blocks, Sigmas
from fw.plugins.encoders.pyramids import Pyramid

HIDDEN = 64
"""Channels of the regressor's pyramid."""
SCENES = (1, 2)
"""Sides of the maps to which the coarsest one is averaged, so that each position depends on all."""


class DreamTeacher(Distilled):
    """DreamTeacher: from the student's maps, a pyramid predicts those of several blocks of a
    diffusion model, without labels (arXiv 2307.07487).

    The loss is the mean over blocks of the squared error, with the teacher's maps normalised over
    channels and positions, plus `attention` times the loss of attention transfer: the distance
    between maps of |f|^2, summed over channels, as vectors of length 1. (Over channels alone,
    normalised maps would have the same |f|^2 everywhere.) The features are the means over positions
    of the student's coarsest map.
    """

    name: ClassVar[str] = "dreamteacher"

    blocks: Blocks = Field(
        None,
        min_length=1,
        description="blocks that it learns; null is each of a U-Net's decoder, else four of them",
    )
    sigma: Sigmas = Field(
        (0.05,), min_length=1, description="noise level; of several, one is drawn for each image"
    )
    attention: float = Field(
        10.0, ge=0, le=LARGEST, description="weight of the attention transfer; lambda_AT"
    )

    def default_blocks(self, network: nn.Module) -> tuple[str, ...]:
        known = list(blocks_of(network))
        decoder = [block for block in known if block.startswith("up.")]
        return tuple(
            decoder
            or dict.fromkeys(known[(len(known) * quarter - 1) // 4] for quarter in (1, 2, 3, 4))
        )

    def build(self, shape: tuple[int, int, int], classes: int) -> Pyramid:
        self.check(shape)
        return Pyramid(self.student, shape, self.width)

    def lesson(
        self, student: nn.Module, teacher: Teacher, shape: tuple[int, int, int], classes: int
    ) -> Lesson:
        assert isinstance(student, Pyramid)
        return Dream(student, teacher, shape, self.sigma, self.attention)


class Dream(Lesson):
    """The two losses of the maps that the regressor predicts."""

    def __init__(
        self,
        student: Pyramid,
        teacher: Teacher,
        shape: tuple[int, int, int],
        sigmas: Sigmas,
        attention: float,
    ):
        super().__init__()
        self.teacher = teacher
        self.sigmas = sigmas
        self.attention = attention
        self.ratio = shape[1] / shape[2]
        self.student = student
        self.regressor = Regressor(
            student.widths, [each.shape[1] for each in self.maps(teacher.sample(shape))]
        )

    def forward(
        self, images: Tensor, labels: Tensor | None, progress: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        sigma = levels_of(self.sigmas, len(images), generator, self.rows)
        targets = self.maps(self.teacher.in_fresh_noise(images, sigma, generator, self.rows))
        predictions = self.regressor(self.student.maps(images), targets)
        pairs = list(zip(predictions, targets, strict=True))
        distances = [(powers(ours) - powers(theirs)).norm(dim=1).mean() for ours, theirs in pairs]
        return {
            "imitation": torch.stack([mse_loss(ours, theirs) for ours, theirs in pairs]).mean(),
            "attention": self.attention * torch.stack(distances).mean(),
        }

    def maps(self, activations: list[Tensor]) -> list[Tensor]:
        """Activations as maps (B, C, h, w), each image's of mean 0 and variance 1."""
        maps = [each if each.dim() == 4 else as_map(each, self.ratio) for each in activations]
        return [layer_norm(each, each.shape[1:]) for each in maps]


def powers(maps: Tensor) -> Tensor:
    """Maps (B, C, h, w) to the sums over channels of their squares, vectors (B, h * w) of length
    1."""
    return normalize(maps.square().sum(dim=1).flatten(1), dim=1)


class Regressor(nn.Module):
    """A feature pyramid: coarse maps are handed down to finer ones, which predict the teacher's of
    about their size.

    `widths` are the channels of the student's maps, from fine to coarse, and `target_widths` those
    of the teacher's.
    """

    def __init__(self, widths: list[int], target_widths: list[int]):
        super().__init__()
        self.read = nn.ModuleList(nn.Conv2d(width, HIDDEN, 1) for width in widths)
        self.scenes = nn.ModuleList(nn.Conv2d(widths[-1], HIDDEN, 1) for _ in SCENES)
        self.write = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Conv2d(HIDDEN, width, 3, padding=1))
            for width in target_widths
        )

    def forward(self, maps: list[Tensor], targets: list[Tensor]) -> list[Tensor]:
        """The student's maps (B, c, h, w) to predictions in the shapes of `targets`, whose values
        are not read."""
        read = [layer(each) for layer, each in zip(self.read, maps, strict=True)]
        for side, layer in zip(SCENES, self.scenes, strict=True):
            read[-1] = read[-1] + resized(layer(adaptive_avg_pool2d(maps[-1], side)), read[-1])
        for fine, coarse in reversed(list(pairwise(range(len(read))))):
            read[fine] = read[fine] + resized(read[coarse], read[fine])
        predictions = []
        for layer, target in zip(self.write, targets, strict=True):
            nearest = min(reversed(read), key=lambda each: abs(each.shape[2] - target.shape[2]))
            predictions.append(layer(resized(nearest, target)))
        return predictions


def resized(maps: Tensor, like: Tensor) -> Tensor:
    if maps.shape[2:] == like.shape[2:]:
        return maps
    return interpolate(maps, size=like.shape[2:], mode="bilinear", align_corners=False)
