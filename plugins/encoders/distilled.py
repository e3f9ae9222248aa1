"""Encoders that learn a diffusion model's features: a denoiser, trained or loaded, teaches a
student.

The teacher gets images in noise, the student clean ones. Only the student is kept.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.pixels import per_image, to_unit
from fw.core.job import Job
from fw.core.kinds import Process
from fw.core.learning.batch_norm import normed_together
from fw.core.learning.loop import Step, descend
from fw.core.learning.optimizers import adam
from fw.core.learning.rows import ALONE, Rows
from fw.core.learning.train import initial_network
from fw.core.machine.precision import autocast, lengthened
from fw.core.machine.tables import Table
from fw.core.machine.transfer import constant
from fw.core.randomness import seeded
from fw.core.types import LARGEST, ImageSet
from fw.plugins.encoders.epochs import too_short
from fw.plugins.encoders.of_denoiser import OfDenoiser, Sigmas


class Teacher:
    """A frozen denoiser, whose blocks are read."""

    def __init__(
        self, network: nn.Module, process: Process, blocks: tuple[str, ...], bf16: bool = False
    ):
        self.model = NetworkDenoiser(network.eval().requires_grad_(False), process, bf16)
        self.blocks = blocks

    @torch.no_grad()
    def __call__(self, images: Tensor, sigma: Tensor, noise: Tensor) -> list[Tensor]:
        """The blocks' activations, (B, c, h, w) or (B, N, D) each, on uint8 images (B, C, H, W) in
        noise of levels (B,)."""
        x = to_unit(images) + per_image(sigma) * noise
        return list(self.model.features(x, sigma, self.blocks).values())

    def in_fresh_noise(
        self, images: Tensor, sigma: Tensor, generator: torch.Generator, rows: Rows = ALONE
    ) -> list[Tensor]:
        """The same activations, in noise that is drawn here."""
        shape = rows.everywhere(len(images)), *images.shape[1:]
        noise = rows.own(torch.randn(shape, generator=generator, device=images.device))
        return self(images, sigma, noise)

    def sample(self, shape: tuple[int, int, int]) -> list[Tensor]:
        """The blocks' activations on one black image (C, H, W), for their shapes."""
        where = next(self.model.network.parameters()).device
        images = torch.zeros(1, *shape, dtype=torch.uint8, device=where)
        return self(images, torch.ones(1, device=where), torch.zeros(images.shape, device=where))


class Lesson(nn.Module):
    """All that a distillation changes: the student and what only the training needs.

    Its children are checkpointed, so everything that has to survive a crash is in the state dict of
    one of them. The teacher is not among them.
    """

    rows: Rows = ALONE
    """Which of the step's images the lesson gets, where a team shares the batch."""

    def forward(
        self, images: Tensor, labels: Tensor | None, progress: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The terms () of the loss on uint8 images (B, C, H, W), which are summed up: means over
        these images. `progress` is in [0, 1)."""
        raise NotImplementedError


class Distilled(OfDenoiser):
    """Trains a denoiser on the training images, without labels and conditions, or loads one, and
    then its student."""

    student: Literal["conv", "resnet18", "vit_tiny"] = Field(
        "conv",
        description=(
            "conv: a few convolutions; resnet18: with a 3x3 stem; vit_tiny: with 8x8 patches"
        ),
    )
    width: int = Field(
        128,
        ge=8,
        le=16384,
        multiple_of=4,
        description="largest number of channels of the conv student",
    )
    steps: int = Field(
        500, ge=1, description="training steps of the student; 500 suit the digits", examples=[6]
    )
    batch: int = Field(128, ge=2, le=1_000_000, description="images per step")
    lr: float = Field(
        2e-3, gt=0, le=LARGEST, description="AdamW's learning rate, which falls to 0 along a cosine"
    )
    weight_decay: float = Field(0.01, ge=0, le=LARGEST, description="AdamW's weight decay")

    @abstractmethod
    def default_blocks(self, network: nn.Module) -> tuple[str, ...]:
        """The blocks of a denoiser that the student learns if none are named."""

    @abstractmethod
    def lesson(
        self, student: nn.Module, teacher: Teacher, shape: tuple[int, int, int], classes: int
    ) -> Lesson:
        """The lesson that trains `student`, which `build` made. Torch's global generator is seeded
        by the job."""

    def cautions(self, shape: tuple[int, int, int], images: int | None) -> Iterator[str]:
        yield from too_short(self.name, self.steps, self.batch, images)

    def check(self, shape: tuple[int, int, int]) -> None:
        super().check(shape)
        _, height, width = shape
        if self.student == "vit_tiny" and (height != width or height % 8):
            raise ValueError(
                f"encoder {self.name}: vit_tiny needs square images whose side divides by 8, not "
                f"{height}x{width}"
            )

    def fit(self, network: nn.Module, data: ImageSet, job: Job) -> None:
        teacher = self.teacher(data, job)
        network.to(job.device).train().requires_grad_(True)
        with seeded(job.seed, "lesson"):
            lesson = self.lesson(network, teacher, data.shape, data.classes).to(job.device)
        rows = lesson.rows = Rows.shared(self.batch, job.team)
        optimizer = adam(lesson.parameters(), self.lr, self.weight_decay)
        images = Table([data.images]).to(job.device)
        labels = None if data.labels is None or not self.uses_labels else data.labels.to(job.device)

        def loss(step: Step) -> Tensor:
            draw = job.generator("distil", step.number, device=job.device)
            chosen = torch.randint(len(images), (self.batch,), generator=draw, device=job.device)
            chosen = rows.own(chosen)
            classes = None if labels is None else labels[chosen]
            with autocast(self.precision, job.device):
                terms = lesson(images.take(chosen), classes, step.number / self.steps, draw)
            terms = {name: rows.part(lengthened(term)) for name, term in terms.items()}
            step.log({f"distil/{name}": term for name, term in terms.items()})
            return sum(terms.values(), torch.zeros((), device=job.device))

        with normed_together(lesson, rows.team):
            descend(
                job,
                self.steps,
                loss,
                optimizer,
                dict(lesson.named_children()),
                label="distil",
                rate=lambda number: self.lr * (1 + math.cos(math.pi * (number / self.steps))) / 2,
                prefix=None,  # the log has the terms alone
                split=rows.split,
            )
        network.eval()

    def teacher(self, data: ImageSet, job: Job) -> Teacher:
        """The denoiser, trained or loaded."""
        network = initial_network(self.model, data.shape, None, job)
        self.check_blocks(network)
        return Teacher(
            self.learned(network, data, job),
            self.process,
            self.blocks or self.default_blocks(network),
            bf16=self.precision == "bf16",
        )


def levels_of(sigmas: Sigmas, count: int, generator: torch.Generator, rows: Rows = ALONE) -> Tensor:
    """A noise level for each of `count` images (B,), all of `sigmas` equally often."""
    device, shape = generator.device, (rows.everywhere(count),)
    listed = constant(sigmas, device)
    return listed[rows.own(torch.randint(len(sigmas), shape, generator=generator, device=device))]
