"""Noisy training images: all that a step draws is a function of (seed, step, stream)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fw.core.diffusion.latents import Latents, Unit
from fw.core.diffusion.pixels import per_image, to_unit
from fw.core.job import Job
from fw.core.kinds import Process
from fw.core.learning.loop import batch_indices
from fw.core.machine.tables import Table
from fw.core.machine.transfer import sent
from fw.core.settings import Train
from fw.core.types import ImageSet


@dataclass
class Batch:
    """The noisy training images of one step, and what the parts of the training make of them. In a
    team it is this member's rows of the step's batch, of `count` images."""

    chosen: Tensor
    """The numbers of the training images, int64 (B,)."""
    x0: Tensor
    """The images (B, C, H, W) in -1..1, or their latents."""
    sigma: Tensor
    """Noise levels (B,)."""
    noise: Tensor
    """Unit noise like x0; the noisy images are x0 + sigma * noise."""
    dropped: Tensor
    """Where the condition is replaced by the null condition, bool (B,)."""
    count: int
    """How many images the step has, in all members of a team."""
    condition: Tensor | None = None
    """The conditions (B, ...); None if there are none, or not yet."""
    augmentation: Tensor | None = None
    """How each image was transformed, for the network to know, float (B, 9); None if none was."""
    activations: Mapping[str, Tensor] = field(default_factory=dict)
    """What the blocks that parts read return for the noisy images: (B, C, h, w) or (B, N, D)."""
    whole: Batch | None = None
    """The batch of which `train.accumulate` made this a part; None if it is all of it."""
    number: int = 0
    """Which part it is, from 0 on."""
    numbers: Tensor | None = None
    """`chosen` on the CPU: rows that are not on the device are fetched by it, without a wait."""

    def taken(self, rows: Table) -> Tensor:
        """What rows of all training images have for these: (B, ...)."""
        return rows.take(self.chosen if rows.there or self.numbers is None else self.numbers)

    @property
    def all(self) -> Batch:
        """All that this process has of the step's batch."""
        return self if self.whole is None else self.whole

    @property
    def complete(self) -> bool:
        """Whether these are all images of the step."""
        return len(self.x0) == self.count

    @property
    def share(self) -> float:
        """How much of the step's batch it is."""
        return len(self.x0) / self.count

    def mean(self, values: Tensor) -> Tensor:
        """What values (B,) add to their mean () over the images of the step."""
        return values.mean() if self.complete else values.sum() / self.count

    def split(self, count: int) -> list[Batch]:
        """`count` parts, in order, which differ by one image at most."""
        if count == 1:
            return [self]

        tensors = {
            each.name: value.tensor_split(count)
            for each in fields(self)
            if isinstance(value := getattr(self, each.name), Tensor)
        }
        cuts: list[dict[str, Any]] = [
            {name: chunks[number] for name, chunks in tensors.items()} for number in range(count)
        ]
        return [replace(self, **cut, whole=self, number=number) for number, cut in enumerate(cuts)]


@dataclass(frozen=True)
class Draw:
    """Draws batches of the training images or latents."""

    examples: Pixels | Latents
    process: Process
    settings: Train
    job: Job

    def __call__(self, rows: Tensor, count: int, step: int, *stream: str) -> Batch:
        """`count` of the images `rows` (N,) at this step; a second batch needs its own stream.

        Numbers are drawn for all of them, and a member of a team keeps those of its own.
        """
        device, own = self.job.device, self.job.team.own
        numbers = self.numbers(rows, count, step)
        chosen = sent(numbers, device)
        # The order of these draws is part of every stored training: append, never reorder.
        draw = self.job.generator(*stream, "noise", step, device=device)
        mirrored = None
        if self.settings.flip:
            mirrored = own(torch.rand(count, generator=draw, device=device) < 0.5)
        posterior = self.job.generator(*stream, "posterior", step, device=device)

        def unit(generator: torch.Generator, shape: Sequence[int]) -> Tensor:
            return own(unit_noise(generator, count, shape))

        afar = self.examples.afar
        x0 = self.examples.take(numbers if afar else chosen, mirrored, partial(unit, posterior))
        if afar and step + 1 < self.settings.steps:
            self.examples.ahead(self.numbers(rows, count, step + 1))
        sigma = own(self.process.sigmas(torch.rand(count, generator=draw, device=device)))
        noise = unit(draw, x0.shape[1:])
        dropped = own(torch.rand(count, generator=draw, device=device) < self.settings.cond_drop)
        return Batch(chosen, x0, sigma, noise, dropped, count, numbers=numbers)

    def numbers(self, rows: Tensor, count: int, step: int) -> Tensor:
        """Which of the images `rows` (N,) this member takes of the `count` of a step: their
        numbers, int64 (B,) on the CPU."""
        places = batch_indices(len(rows), count, step, self.job.seed)
        return rows[self.job.team.own(places)]


def unit_noise(generator: torch.Generator, count: int, shape: Sequence[int]) -> Tensor:
    """Unit noise (count, *shape) on the generator's device."""
    return torch.randn(count, *shape, generator=generator, device=generator.device)


def training_examples(data: ImageSet | Latents) -> Pixels | Latents:
    return Pixels(Table([data.images])) if isinstance(data, ImageSet) else data


@dataclass(frozen=True)
class Pixels:
    """Images to train on, with the methods of `fw.core.diffusion.latents.Latents`."""

    images: Table

    def to(self, device: torch.device) -> Pixels:
        return Pixels(self.images.to(device))

    @property
    def afar(self) -> bool:
        """Whether they are fetched from where they are, step by step."""
        return not self.images.there

    def ahead(self, numbers: Tensor) -> None:
        """Begin to fetch the images that the next step takes."""
        self.images.ahead(numbers)

    def take(self, numbers: Tensor, mirrored: Tensor | None, unit: Unit) -> Tensor:
        """The images with these numbers (B,) as (B, C, H, W) in -1..1, mirrored where `mirrored`,
        bool (B,)."""
        x0 = to_unit(self.images.take(numbers))
        return x0 if mirrored is None else torch.where(per_image(mirrored), x0.flip(-1), x0)
