"""Train a denoiser: the loop, its batches and its averaged weights, all functions of (seed, step)."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

from fw.core.diffusion import Denoiser, to_unit
from fw.core.job import Job, Stateful
from fw.core.kinds import Backbone, Joint, Process
from fw.core.randomness import generator, seed_from
from fw.core.recipe import Train
from fw.core.types import Annotation, ConditionSpec, ImageSet

LOG_EVERY = 10


def train(
    backbone: Backbone,
    process: Process,
    data: ImageSet,
    annotation: Annotation | None,
    settings: Train,
    job: Job,
) -> nn.Module:
    """Train on the images and their conditions; returns the network with the averaged (EMA) weights."""
    spec = annotation.spec if annotation else None
    network, averaged = (initial_network(backbone, data.shape, spec, job) for _ in range(2))
    model = Denoiser(network, process, bf16=settings.precision == "bf16")
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=settings.lr,
        betas=(0.9, 0.99),
        weight_decay=settings.weight_decay,
        fused=job.device.type == "cuda",
    )
    images = data.images.to(job.device)
    conditions = annotation.conditions.to(job.device) if annotation else None
    state: dict[str, Stateful] = {"network": network, "averaged": averaged, "optimizer": optimizer}
    for step in job.steps(settings.steps, state):
        chosen = batch_indices(len(data), settings.batch, step, job.seed).to(job.device, non_blocking=True)
        draw = job.generator("noise", step, device=job.device)
        x0 = to_unit(images[chosen])  # (B, C, H, W)
        if settings.flip:
            mirrored = torch.rand(len(x0), generator=draw, device=job.device) < 0.5
            x0 = torch.where(mirrored[:, None, None, None], x0.flip(-1), x0)
        sigma = process.sigmas(torch.rand(len(x0), generator=draw, device=job.device))
        noise = torch.randn(x0.shape, generator=draw, device=job.device)
        dropped = torch.rand(len(x0), generator=draw, device=job.device) < settings.cond_drop
        condition = conditions[chosen] if conditions is not None else None
        if isinstance(backbone, Joint) and condition is not None:
            denoising, recognising, recognised = model.joint_loss(x0, sigma, noise, condition)
            loss = denoising.mean() + backbone.weight * recognising.mean()
            values = {"train/denoising_loss": denoising.mean(), "train/accuracy": recognised.float().mean()}
        else:
            loss = model.loss(x0, sigma, noise, condition, dropped if conditions is not None else None).mean()
            values = {}

        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        optimizer.step()
        average(averaged, network, min(settings.ema, (1 + step) / (10 + step)))
        if step % LOG_EVERY == 0 or step == settings.steps - 1:
            job.log(step, {"train/loss": loss, "train/grad_norm": norm, **values})
    return averaged


def initial_network(backbone: Backbone, shape: tuple[int, int, int], spec: ConditionSpec | None, job: Job) -> nn.Module:
    """The untrained network; arms with the same architecture start from the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_from(job.seed, "init"))
        network = backbone.build(shape, spec)
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
