"""Conditions that are learned beside the denoiser, from its own features (SGFM, arXiv
2312.08825, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from fw.core.diffusion.generate import batch_size
from fw.core.diffusion.taps import blocks_of, pooled
from fw.core.job import Job, Stateful
from fw.core.kinds import Online
from fw.core.learning.averages import average
from fw.core.learning.batches import Batch, unit_noise
from fw.core.learning.gradients import Addition
from fw.core.learning.loop import Step, down
from fw.core.learning.optimizers import adam
from fw.core.learning.parts.part import Part, Training
from fw.core.randomness import seeded
from fw.core.types import Annotation, ConditionSpec

WEIGHT_DECAY = 0.01


class OnlineGrouping(Part):
    """What an online annotator learns beside the denoiser: its grouping, and the average of the
    grouping's weights.

    Features are those of the averaged denoiser, with the null condition: an image's condition must
    not confirm itself. They have no gradient, so the denoiser learns nothing but to denoise.
    """

    def __init__(self, annotator: Online):
        self.annotator = annotator

    @property
    def spec(self) -> ConditionSpec:
        return self.annotator.condition

    def join(self, training: Training) -> None:
        self.model = training.averaged
        self.take = training.draw.examples.take
        self.job = training.job
        device = self.job.device
        self.start = round(self.annotator.start * training.settings.steps)
        self.batch = batch_size(training.shape, device)
        blocks = list(blocks_of(self.model.network))
        self.block = self.annotator.block or blocks[len(blocks) // 2]
        image = torch.zeros(1, *training.shape, device=device)
        width = self.features(image, torch.zeros_like(image)).shape[1]
        self.grouping = initial_grouping(self.annotator, width, self.job)
        self.averaged = initial_grouping(self.annotator, width, self.job).eval()
        self.optimizer = adam(self.grouping.parameters(), self.annotator.lr, WEIGHT_DECAY)
        self.addition = Addition(list(self.grouping.parameters()), self.job.team)

    @property
    def state(self) -> Mapping[str, Stateful]:
        return {
            "online_grouping": self.grouping,
            "online_averaged": self.averaged,
            "online_optimizer": self.optimizer,
        }

    def begin(self, batch: Batch, step: Step) -> None:
        """Learn from the images; from the start on, give them their prototypes as conditions."""
        stream = self._stream("online", step.number)
        noise = self.job.team.own(unit_noise(stream, batch.count, batch.x0.shape[1:]))
        features = self.features(batch.x0, noise)  # (B, F)
        if step.number >= self.start:
            batch.condition = self.prototypes[self.assign(features)]  # (B, D)
        features = self.job.team.whole(features, batch.count)  # grouped as one batch
        loss = self.grouping.loss(features, step.number)  # type: ignore[operator]
        loss = self.job.team.part(loss)
        down(self.optimizer, loss, addition=self.addition)
        step.log({"train/online_loss": loss})

    def follow(self, decay: float, step: Step) -> None:
        average(self.averaged, self.grouping, decay)

    def annotation(self, count: int) -> tuple[Annotation, Tensor]:
        """The final conditions of all `count` images, and the numbers of their prototypes
        (count,)."""
        streams = [self._stream("online annotation", draw) for draw in range(self.annotator.draws)]
        posterior = self._stream("online posterior")
        assigned = []
        images = torch.arange(count)
        for chosen in self.job.track(images.split(self.batch), "assign"):
            x0 = self.take(
                chosen, None, partial(unit_noise, posterior, len(chosen))
            )  # (B, C, H, W)
            shape = x0.shape[1:]
            features = [
                self.features(x0, unit_noise(stream, len(x0), shape))
                for stream in streams  # (B, F) each
            ]
            assigned.append(self.assign(torch.stack(features).mean(dim=0)).cpu())
        groups = torch.cat(assigned)
        return Annotation(self.spec, self.prototypes.cpu()[groups]), groups

    @torch.no_grad()
    def features(self, x0: Tensor, noise: Tensor) -> Tensor:
        """What the block makes of images x0 (B, C, H, W) in unit noise of the same shape, at the
        annotator's noise level: (B, F)"""
        self.model.network.eval()
        sigma = x0.new_full((len(x0),), self.annotator.sigma)
        x = x0 + self.annotator.sigma * noise
        activation = self.model.features(x, sigma, [self.block])[self.block]
        return pooled(activation) if self.annotator.pool else activation.flatten(1)

    def _stream(self, *words: int | str) -> torch.Generator:
        return self.job.generator(*words, device=self.job.device)

    @property
    @torch.no_grad()
    def prototypes(self) -> Tensor:
        """The averaged prototypes (K, D)."""
        return self.averaged.prototypes  # type: ignore[return-value]

    @torch.no_grad()
    def assign(self, features: Tensor) -> Tensor:
        """The number of each image's averaged prototype, from its features (B, F): (B,)"""
        return self.averaged.assign(features)  # type: ignore[operator]


def initial_grouping(annotator: Online, width: int, job: Job) -> nn.Module:
    """The untrained grouping, a function of the seed."""
    with seeded(job.seed, "online"):
        return annotator.build(width).to(job.device)
