"""Train a denoiser: the loop, its batches and its averaged weights, all functions of (seed, step)."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fw.core.diffusion.denoiser import Denoiser
from fw.core.diffusion.latents import Latents
from fw.core.diffusion.pixels import per_image, to_unit
from fw.core.diffusion.taps import tapped
from fw.core.job import Job, Stateful
from fw.core.kinds import Backbone, Joint, Objective, Process
from fw.core.kinds.boundaries import checked_network
from fw.core.learning.joint import JointLoss, Noisy
from fw.core.learning.objectives import Terms
from fw.core.learning.online import Finder
from fw.core.randomness import generator, seed_from
from fw.core.settings import Train
from fw.core.types import Annotation, ConditionSpec, ImageSet

LOG_EVERY = 10


def train(
    backbone: Backbone,
    process: Process,
    data: ImageSet | Latents,
    annotation: Annotation | None,
    settings: Train,
    job: Job,
    online: Finder | None = None,
    objectives: Sequence[Objective] = (),
    targets: Sequence[Tensor | None] = (),
) -> nn.Module:
    """Train on the images or latents and their conditions; returns the network with the averaged (EMA) weights.

    `online` finds the conditions meanwhile, in an arm with an online annotator, which has no annotation before.
    `objectives` add terms to the loss; `targets` are the features (N, F) of all images that each of them asked for.
    """
    spec = online.spec if online else annotation.spec if annotation else None
    network, averaged = (initial_network(backbone, data.shape, spec, job) for _ in range(2))
    model, slow = (Denoiser(each, process, bf16=settings.precision == "bf16") for each in (network, averaged))
    terms = Terms(objectives, targets, slow, data.shape, job)
    learned = [*network.parameters(), *terms.parameters()]
    optimizer = torch.optim.AdamW(
        learned,
        lr=settings.lr,
        betas=(0.9, 0.99),
        weight_decay=settings.weight_decay,
        fused=job.device.type == "cuda",
    )
    examples = training_examples(data).to(job.device)
    conditions = annotation.conditions.to(job.device) if annotation else None
    partial = annotation is not None and not bool(annotation.known.all())

    def take(rows: Tensor, count: int, step: int, *stream: str) -> Noisy:
        """`count` of the images `rows` at this step, in noise, all of it a function of (seed, step, stream)."""
        chosen = rows[batch_indices(len(rows), count, step, job.seed)].to(job.device, non_blocking=True)
        draw = job.generator(*stream, "noise", step, device=job.device)
        mirrored = torch.rand(len(chosen), generator=draw, device=job.device) < 0.5 if settings.flip else None
        x0 = examples.take(chosen, mirrored, job.generator(*stream, "posterior", step, device=job.device))
        sigma = process.sigmas(torch.rand(len(x0), generator=draw, device=job.device))
        noise = torch.randn(x0.shape, generator=draw, device=job.device)
        dropped = torch.rand(len(x0), generator=draw, device=job.device) < settings.cond_drop
        return Noisy(chosen, x0, sigma, noise, dropped)

    joint = JointLoss(backbone, annotation, take) if isinstance(backbone, Joint) else None
    shown = torch.arange(len(data)) if joint is None else joint.shown(len(data))
    state: dict[str, Stateful] = {"network": network, "averaged": averaged, "optimizer": optimizer, **terms.state}
    if online is not None:
        state |= online.state
    for step in job.steps(settings.steps, state):
        batch = take(shown, settings.batch, step)
        chosen, x0, sigma, noise, dropped = batch
        condition = conditions[chosen] if conditions is not None else None
        logged = step % LOG_EVERY == 0 or step == settings.steps - 1
        values: dict[str, Tensor] = {}
        if online is not None:
            condition, values["train/online_loss"] = online.step(slow, x0, step)
        losses = None
        with tapped(network, terms.blocks) as activations:
            if joint is not None and condition is not None:
                losses = joint(model, batch, condition)
            else:
                if partial and condition is not None:
                    condition, dropped = condition.clamp(min=0), dropped | (condition < 0)
                loss = model.loss(x0, sigma, noise, condition, dropped if condition is not None else None).mean()
        if joint is not None and losses is not None:
            losses = joint.beside(model, losses, step)
            values |= joint.log(losses, network) if logged else {}
            loss = joint.total(losses)
        weighted = terms(activations, x0, sigma, noise, chosen, step)
        if logged:
            values = terms.log(weighted, loss, network) | values
        loss = sum(weighted.values(), loss)

        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(learned, settings.clip)
        optimizer.step()
        decay = min(settings.ema, (1 + step) / (10 + step))
        average(averaged, network, decay)
        if online is not None:
            average(online.averaged, online.grouping, decay)
        if logged:
            job.log(step, {"train/loss": loss, "train/grad_norm": norm, **values})
    return averaged


def training_examples(data: ImageSet | Latents) -> Pixels | Latents:
    return Pixels(data.images) if isinstance(data, ImageSet) else data


@dataclass(frozen=True)
class Pixels:
    """Images to train on, taken like `fw.core.diffusion.latents.Latents`."""

    images: Tensor

    def to(self, device: torch.device) -> Pixels:
        return Pixels(self.images.to(device))

    def take(self, chosen: Tensor, mirrored: Tensor | None, generator: torch.Generator) -> Tensor:
        """Chosen images (B, C, H, W) in -1..1; those are mirrored where `mirrored`, bool (B,), says so."""
        x0 = to_unit(self.images[chosen])
        return x0 if mirrored is None else torch.where(per_image(mirrored), x0.flip(-1), x0)


def initial_network(backbone: Backbone, shape: tuple[int, int, int], spec: ConditionSpec | None, job: Job) -> nn.Module:
    """The untrained network; arms with the same architecture start from the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_from(job.seed, "init"))
        network = checked_network(backbone, backbone.build(shape, spec))
    if job.device.type == "cuda":
        network = network.to(memory_format=torch.channels_last)
    return network.to(job.device)


def batch_indices(count: int, batch: int, step: int, seed: int) -> Tensor:
    """The images of one step (batch,): epochs are permutations of (seed, epoch), laid end to end."""
    positions = torch.arange(step * batch, (step + 1) * batch)
    epochs = positions // count
    return torch.cat(
        [permutation(count, seed, epoch)[positions[epochs == epoch] % count] for epoch in epochs.unique().tolist()]
    )


@functools.lru_cache(maxsize=4)
def permutation(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator(seed, "epoch", epoch))


def learning_rate(step: int, settings: Train) -> float:
    """Linear warm-up, then a cosine from lr to 5 % of it."""
    warm = min(1.0, (step + 1) / (settings.warmup + 1))
    along = max(0, step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.lr * warm * (0.05 + 0.95 * (1 + math.cos(math.pi * along)) / 2)


@torch.no_grad()
def average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    """averaged <- decay * averaged + (1 - decay) * network; buffers are copied."""
    torch._foreach_lerp_(list(averaged.parameters()), list(network.parameters()), 1 - decay)
    for kept, fresh in zip(averaged.buffers(), network.buffers(), strict=True):
        kept.copy_(fresh)
