"""Conditions that are found while the denoiser learns, in its own features (SGFM, arXiv 2312.08825, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from fw.core.diffusion.denoiser import Denoiser
from fw.core.diffusion.generate import batch_size
from fw.core.diffusion.taps import blocks_of, pooled
from fw.core.job import Job, Stateful
from fw.core.kinds import Online
from fw.core.randomness import seed_from
from fw.core.types import Annotation, ConditionSpec

Take = Callable[[Tensor, Tensor | None, torch.Generator], Tensor]
"""Chosen examples (B,), mirrored where a bool (B,) says so, as x0 (B, C, H, W)."""


class Finder:
    """What an online annotator learns beside the denoiser: its grouping, and the average of its weights.

    Features are those of the averaged denoiser with the null condition, so that what an image is told cannot confirm
    itself, and without gradient, so that the denoiser learns nothing but to denoise.
    """

    def __init__(self, annotator: Online, model: Denoiser, shape: tuple[int, int, int], steps: int, job: Job):
        """`model` is like the one that will be trained, which lasts `steps`; it tells how wide the features are."""
        self.annotator = annotator
        self.job = job
        self.start = round(annotator.start * steps)
        self.batch = batch_size(shape, job.device)
        blocks = list(blocks_of(model.network))
        self.block = annotator.block or blocks[len(blocks) // 2]
        width = self.features(model, torch.zeros(1, *shape, device=job.device), job.generator(device=job.device)).shape[
            1
        ]
        self.grouping, self.averaged = (initial_grouping(annotator, width, job) for _ in range(2))
        self.averaged.eval()
        self.optimizer = torch.optim.AdamW(self.grouping.parameters(), lr=annotator.lr)

    @property
    def spec(self) -> ConditionSpec:
        return self.annotator.condition

    @property
    def state(self) -> Mapping[str, Stateful]:
        """What a checkpoint of the training holds of it."""
        return {
            "online_grouping": self.grouping,
            "online_averaged": self.averaged,
            "online_optimizer": self.optimizer,
        }

    def step(self, model: Denoiser, x0: Tensor, step: int) -> tuple[Tensor | None, Tensor]:
        """Learn from a batch x0 (B, C, H, W): its conditions (B, D), None before the start, and the loss ()."""
        noise = self._stream("online", step)
        features = self.features(model, x0, noise)  # (B, F)
        condition = self.prototypes[self.assign(features)] if step >= self.start else None  # (B, D)
        loss = self.grouping.loss(features, step)  # type: ignore[operator]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return condition, loss

    def annotation(self, model: Denoiser, take: Take, count: int) -> tuple[Annotation, Tensor]:
        """The conditions of all `count` images in the end, and which prototypes they are (count,)."""
        streams = [self._stream("online annotation", draw) for draw in range(self.annotator.draws)]
        posterior = self._stream("online posterior")
        found = []
        for chosen in self.job.track(torch.arange(count, device=self.job.device).split(self.batch), "assign"):
            x0 = take(chosen, None, posterior)  # (B, C, H, W)
            features = [self.features(model, x0, stream) for stream in streams]  # (B, F) each
            found.append(self.assign(torch.stack(features).mean(dim=0)).cpu())
        groups = torch.cat(found)
        return Annotation(self.spec, self.prototypes.cpu()[groups]), groups

    @torch.no_grad()
    def features(self, model: Denoiser, x0: Tensor, noise: torch.Generator) -> Tensor:
        """What the block makes of images x0 (B, C, H, W) at the annotator's noise level: (B, F)"""
        model.network.eval()
        sigma = x0.new_full((len(x0),), self.annotator.sigma)
        x = x0 + self.annotator.sigma * torch.randn(x0.shape, generator=noise, device=x0.device)
        activation = model.features(x, sigma, [self.block])[self.block]  # (B, C, h, w) or (B, N, D)
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
        """The averaged prototype of each image, by its features (B, F): (B,)"""
        return self.averaged.assign(features)  # type: ignore[operator]


def initial_grouping(annotator: Online, width: int, job: Job) -> nn.Module:
    """The untrained grouping, a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_from(job.seed, "online"))
        return annotator.build(width).to(job.device)
