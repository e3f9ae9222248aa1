"""Averaged weights (EMA): they denoise better than those of the last step."""

from __future__ import annotations

import torch
from torch import nn

from fw.core.settings import Train

EARLY = 0.05
"""The half-life is at most this share of the images so far, as in EDM's training (arXiv 2206.00364,
whose code calls it the ramp-up ratio)."""


def decay(settings: Train, step: int) -> float:
    """How much of the average is kept at this step; 0 makes it the network itself."""
    if settings.ema is not None:
        return ramped(settings.ema, step) if settings.ema_ramp else settings.ema
    assert settings.ema_halflife is not None, "settings without an average are not valid"
    so_far = EARLY * step * settings.batch if settings.ema_ramp else settings.ema_halflife
    halflife = min(settings.ema_halflife, so_far)
    return 0.5 ** (settings.batch / halflife) if halflife else 0.0


def untrained(settings: Train) -> float:
    """How much of the untrained weights is in the last average; 0 with a ramp, which forgets
    them."""
    return 0.0 if settings.ema_ramp else decay(settings, 0) ** settings.steps


def ramped(decay: float, step: int) -> float:
    """The decay at this step: (1 + n) / (10 + n) until that is more than `decay`.

    So the average does not hold on to the untrained weights. The ramp is that of TensorFlow's
    ExponentialMovingAverage, which has it as `num_updates`.
    """
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    """averaged <- decay * averaged + (1 - decay) * network; buffers are copied."""
    torch._foreach_lerp_(list(averaged.parameters()), list(network.parameters()), 1 - decay)
    for kept, fresh in zip(averaged.buffers(), network.buffers(), strict=True):
        kept.copy_(fresh)
