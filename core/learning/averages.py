"""Averaged weights (EMA): they denoise better than those of the last step."""

from __future__ import annotations

import torch
from torch import nn


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
