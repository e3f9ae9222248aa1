"""The training and the sampling that fw is compared with: as one would write them by hand in plain
torch, with all that makes them fast: the same network, one fused optimizer, one lerp for the
averages, images that lie on the device, no value read back.

`drawn` draws for DDPM with the cosine schedule that predicts v (arXiv 2006.11239, 2202.00512), as
the flagship has it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Batches = Callable[[int], tuple[Tensor, Tensor, Tensor]]
"""By the number of a step: noisy images (B, C, H, W) as the network takes them, their times (B,),
and what it should return for them."""


@dataclass(frozen=True)
class Setting:
    """What the training takes from a recipe."""

    steps: int
    lr: float
    betas: tuple[float, float]
    warmup: int
    ema: float


def trained(
    network: nn.Module,
    averaged: nn.Module,
    batches: Batches,
    setting: Setting,
    after: Callable[[int], None] = lambda done: None,
) -> None:
    """Train the network; `averaged` becomes its average. `after` is called after each step."""
    weights: list[Tensor] = list(network.parameters())
    averages: list[Tensor] = list(averaged.parameters())
    optimizer = torch.optim.AdamW(
        weights, lr=setting.lr, betas=setting.betas, weight_decay=0.0, fused=True
    )
    for step in range(setting.steps):
        noisy, times, wanted = batches(step)
        loss = (network(noisy, times) - wanted).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate(step, setting)
        optimizer.step()
        kept = min(setting.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(averages, weights, 1 - kept)
        after(step + 1)


def drawn(images: Tensor, batch: int) -> Batches:
    """Batches of uint8 images (N, C, H, W), drawn on their device."""
    scale, size = (each.to(images.device) for each in schedule())
    order = torch.randperm(len(images), device=images.device)

    def draw(step: int) -> tuple[Tensor, Tensor, Tensor]:
        start = step * batch % (len(images) - batch + 1)
        clean = images[order[start : start + batch]].float() / 127.5 - 1
        times = torch.randint(len(scale), (batch,), device=images.device)
        alpha, sigma = scale[times][:, None, None, None], size[times][:, None, None, None]
        noise = torch.randn_like(clean)
        return alpha * clean + sigma * noise, times, alpha * noise - sigma * clean

    return draw


@torch.inference_mode()
def sampled(
    network: nn.Module, scheduler: Any, steps: int, shape: tuple[int, ...], device: str = "cpu"
) -> Tensor:
    """Images (B, C, H, W) as uint8, by a scheduler of diffusers that is configured for v."""
    scheduler.set_timesteps(steps)
    x = torch.randn(shape, device=device)
    for time in scheduler.timesteps:
        predicted = network(x, time.to(device).expand(len(x)))
        x = scheduler.step(predicted, time, x).prev_sample
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()


def schedule(count: int = 1000) -> tuple[Tensor, Tensor]:
    """What images and noise are multiplied with at each timestep, (T,) each."""
    angle = [math.cos((t / count + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(count + 1)]
    betas = [min(1 - angle[t + 1] / angle[t], 0.999) for t in range(count)]
    kept = (1 - torch.tensor(betas)).cumprod(0)
    return kept.sqrt(), (1 - kept).sqrt()


def rate(step: int, setting: Setting) -> float:
    """Linear warm-up, then a cosine down to 5 %."""
    warm = min(1.0, (step + 1) / (setting.warmup + 1))
    along = max(0, step - setting.warmup) / max(1, setting.steps - setting.warmup)
    return setting.lr * warm * (0.05 + 0.95 * (1 + math.cos(math.pi * along)) / 2)
