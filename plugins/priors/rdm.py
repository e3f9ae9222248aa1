"""A diffusion model of representations, from which conditions are drawn (RCG, arXiv 2312.03701,
section 3)."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from fw.core.job import Job
from fw.core.kinds import Prior
from fw.core.kinds.size import check_weights
from fw.core.learning.averages import average, ramped
from fw.core.learning.loop import Step, descend
from fw.core.learning.optimizers import adam
from fw.core.learning.rows import Rows
from fw.core.machine.transfer import collected, sent
from fw.core.randomness import generator, seeded
from fw.core.types import LARGEST, Annotation
from fw.plugins.priors.residual_mlp import ResidualMLP
from fw.plugins.shared.frechet import distance, gaussian

TIMESTEPS = 1000
AT_ONCE = 1000
"""Vectors that are sampled in one batch."""


class RDM(Prior):
    """RCG's representation diffusion model (arXiv 2312.03701): an MLP that denoises vectors,
    sampled with DDIM.

    The defaults suit a thousand small images on a CPU. The paper's are width 1536, depth 12, batch
    512, 200 epochs, lr 5.12e-4 and ema 0.9999. The loss looks flat from the start; `rep_fd` against
    `rep_fd_floor` says whether it has learned. It may memorise its training vectors, so look at a
    copy check, too.
    """

    name: ClassVar[str] = "rdm"
    version: ClassVar[int] = 2
    forms: ClassVar[frozenset[str]] = frozenset({"vector"})

    steps: int = Field(8000, ge=1, description="training steps", examples=[8])
    batch: int = Field(128, ge=1, le=1_000_000, description="vectors per step; the paper has 512")
    lr: float = Field(
        5e-4, gt=0, le=LARGEST, description="AdamW's learning rate, constant; the paper has 5.12e-4"
    )
    weight_decay: float = Field(0.01, ge=0, le=LARGEST, description="AdamW's weight decay")
    ema: float = Field(
        0.999, ge=0, lt=1, description="decay of the averaged weights; ramps up as (1+n)/(10+n)"
    )
    width: int = Field(
        256, ge=8, le=16384, description="width of the blocks; the paper has 1536", examples=[16]
    )
    depth: int = Field(
        4, ge=1, le=1000, description="residual blocks; the paper has 12", examples=[1]
    )
    sampling_steps: int = Field(
        250,
        ge=10,
        le=TIMESTEPS // 2,
        description=f"DDIM steps, a divisor of {TIMESTEPS}",
        examples=[10],
    )
    eta: float = Field(
        1.0, ge=0, le=1, description="share of fresh noise in a DDIM step: 0 is deterministic"
    )
    count: int = Field(
        4000, ge=1, le=10_000_000, description="vectors that are drawn, the bank", examples=[50]
    )

    @field_validator("sampling_steps")
    @classmethod
    def _divides(cls, sampling_steps: int) -> int:
        if TIMESTEPS % sampling_steps:
            raise ValueError(
                f"the {TIMESTEPS} timesteps cannot be divided by {sampling_steps}; take 50, 100 or "
                "250"
            )
        return sampling_steps

    @model_validator(mode="after")
    def _holdable(self) -> Self:
        check_weights("prior rdm", 2 * self.depth * self.width**2)
        return self

    def bank(self, annotation: Annotation, job: Job) -> Tensor:
        scale = annotation.conditions.square().mean().sqrt() or torch.tensor(
            1.0
        )  # 1 where they are standardised
        vectors = (annotation.conditions / scale).to(job.device)  # (N, D)
        return scale * self._drawn(self._trained(vectors, job), vectors.shape[1], job)

    def quality(self, bank: Tensor, annotation: Annotation) -> dict[str, float]:
        """Frechet distances to one half of the training vectors: of the bank, and of as many
        from the other half."""
        known = annotation.conditions
        count = min(len(bank), len(known) // 2)
        if count < 2:
            return {}
        order = torch.randperm(len(known), generator=generator("halves"))
        real, reference = known[order[:count]], gaussian(known[order[len(known) // 2 :]])
        compared = {"rep_fd": bank[:count], "rep_fd_floor": real}
        return {key: distance(reference, gaussian(vectors)) for key, vectors in compared.items()}

    def _trained(self, vectors: Tensor, job: Job) -> nn.Module:
        """The network with the averaged weights. It predicts x0, the vectors without noise."""
        with seeded(job.seed, "rdm"):
            network = ResidualMLP(vectors.shape[1], self.width, self.depth).to(job.device)
        averaged = copy.deepcopy(network)
        optimizer = adam(network.parameters(), self.lr, self.weight_decay)
        alphas_cumprod = self._scheduler().alphas_cumprod.to(job.device)  # (TIMESTEPS,)

        rows, count = Rows.shared(self.batch, job.team), (self.batch,)

        def loss(step: Step) -> Tensor:
            draw = job.generator("rdm", step.number, device=job.device)
            chosen = torch.randint(len(vectors), count, generator=draw, device=job.device)
            times = torch.randint(TIMESTEPS, count, generator=draw, device=job.device)
            shape = self.batch, vectors.shape[1]
            noise = torch.randn(shape, generator=draw, device=job.device)
            chosen, times, noise = (rows.own(each) for each in (chosen, times, noise))
            x0 = vectors[chosen]  # (B, D)
            share = alphas_cumprod[times][:, None]  # (B, 1)
            noisy = share.sqrt() * x0 + (1 - share).sqrt() * noise
            return rows.part(mse_loss(network(noisy, times), x0))

        def follow(step: Step) -> None:
            average(averaged, network, ramped(self.ema, step.number))

        state = {"network": network, "averaged": averaged}
        descend(
            job,
            self.steps,
            loss,
            optimizer,
            state,
            label="rdm",
            follow=follow,
            split=rows.split,
        )
        return averaged.eval()

    @torch.no_grad()
    def _drawn(self, network: nn.Module, size: int, job: Job) -> Tensor:
        """`count` samples (count, D) on the CPU."""
        scheduler = self._scheduler()
        scheduler.set_timesteps(self.sampling_steps)
        times = sent(scheduler.timesteps, job.device)
        batches = []
        for start in job.track(range(0, self.count, AT_ONCE), "draw"):
            draw = job.generator("rdm bank", start)
            count = min(AT_ONCE, self.count - start)
            x = sent(torch.randn(count, size, generator=draw), job.device)  # (B, D)
            for time, there in zip(scheduler.timesteps, times, strict=True):
                x0 = network(x, there.expand(count))
                fresh = torch.randn(count, size, generator=draw) if self.eta else None
                noise = None if fresh is None else sent(fresh, job.device)
                x = scheduler.step(x0, time, x, eta=self.eta, variance_noise=noise).prev_sample
            batches.append(x)
        return torch.cat(list(collected(batches)))

    def _scheduler(self) -> Any:
        """The paper's noise levels, and its sampling steps: 997, ..., 5, 1. They end a little
        above zero, which keeps the variance of narrow clusters; steps that end at zero lose a
        fifth of a standard deviation of 0.1."""
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        return DDIMScheduler(
            num_train_timesteps=TIMESTEPS,
            beta_start=0.0015,
            beta_end=0.0195,
            beta_schedule="scaled_linear",
            prediction_type="sample",
            clip_sample=False,
            timestep_spacing="leading",
            steps_offset=1,
            set_alpha_to_one=False,
        )
