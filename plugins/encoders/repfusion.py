"""RepFusion: a student learns a diffusion model's features of noisy images (Yang & Wang, arXiv
2308.10916).

This is the paper's first stage; its second is to fine-tune the student on the task at hand.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from fw.core.diffusion.pixels import to_unit
from fw.core.diffusion.taps import pooled, usual_block
from fw.plugins.encoders.distilled import Distilled, Lesson, Teacher, levels_of
from fw.plugins.encoders.of_denoiser import Blocks, Sigmas
from fw.plugins.encoders.trunks import BACKBONES, ImageEncoder


class RepFusion(Distilled):
    """RepFusion: the student's features, projected, become the means over positions of a diffusion
    model's block, without labels (arXiv 2308.10916).

    Of several noise levels, one is drawn for each image at each step, all equally often. The
    paper's policy that chooses among them needs labels: `repfusion_policy`. The teacher gets images
    in noise of that level; in the released code it gets the level alone, without noise. Its
    features are standardised to mean 0 and variance 1 over the batch. The paper leaves them as they
    are, so they differ little between images.
    """

    name: ClassVar[str] = "repfusion"

    blocks: Blocks = Field(
        None,
        min_length=1,
        description=(
            "blocks that are put side by side; null is the decoder's at the second-lowest "
            "resolution"
        ),
    )
    sigma: Sigmas = Field(
        (0.05,), min_length=1, description="noise levels of which one is drawn for each image"
    )

    def default_blocks(self, network: nn.Module) -> tuple[str, ...]:
        return (usual_block(network),)

    def build(self, shape: tuple[int, int, int], classes: int) -> ImageEncoder:
        self.check(shape)
        return ImageEncoder(*BACKBONES[self.student](shape, self.width))

    def lesson(
        self, student: nn.Module, teacher: Teacher, shape: tuple[int, int, int], classes: int
    ) -> Lesson:
        assert isinstance(student, ImageEncoder)
        return Imitation(student, teacher, shape, self.sigma)


class Imitation(Lesson):
    """The squared error of the student's projected features: 1 if they predict nothing."""

    def __init__(
        self, student: ImageEncoder, teacher: Teacher, shape: tuple[int, int, int], sigmas: Sigmas
    ):
        super().__init__()
        self.teacher = teacher
        self.sigmas = sigmas
        self.size = vectors(teacher.sample(shape)).shape[1]
        self.backbone = student.backbone
        self.project = nn.Linear(student.dims, self.size)
        self.standardise = nn.BatchNorm1d(self.size, affine=False)

    def forward(
        self, images: Tensor, labels: Tensor | None, progress: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        sigma = levels_of(self.sigmas, len(images), generator, self.rows)
        return {"imitation": self.imitation(images, self.target(images, sigma, generator))}

    def target(self, images: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
        """The teacher's features (B, D) of the images in noise."""
        activations = self.teacher.in_fresh_noise(images, sigma, generator, self.rows)
        return self.standardise(vectors(activations))

    def imitation(self, images: Tensor, target: Tensor) -> Tensor:
        return mse_loss(self.project(self.backbone(to_unit(images))), target)


def vectors(activations: list[Tensor]) -> Tensor:
    """The means over positions of all blocks, side by side: (B, D)"""
    return torch.cat([pooled(each) for each in activations], dim=1)
