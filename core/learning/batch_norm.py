"""Batch norm in a team: means and variances over the rows of all its members, as one process has
them (Ioffe & Szegedy, arXiv 1502.03167, algorithm 1). Torch's SyncBatchNorm does it on GPUs alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fw.core.machine.precision import lengthened
from fw.core.machine.team import Team


@contextmanager
def normed_together(network: nn.Module, team: Team) -> Iterator[None]:
    """While this lasts, the batch norms of the network, in train mode, see the rows of all members,
    and so do their running statistics. Of a team of one nothing changes."""
    norms: list[Any] = [each for each in network.modules() if isinstance(each, _BatchNorm)]
    patched = norms if team.size > 1 else []
    for norm in patched:
        norm.forward = Together(norm, team)
    try:
        yield
    finally:
        for norm in patched:
            del norm.forward


class Together:
    """The forward of a batch norm, over the rows of a team."""

    def __init__(self, norm: Any, team: Team):
        self.norm = norm
        self.team = team

    def __call__(self, x: Tensor) -> Tensor:
        norm = self.norm
        if not norm.training and norm.running_mean is not None:
            return type(norm).forward(norm, x)
        norm._check_input_dim(x)
        normal, mean, variance = Standardised.apply(lengthened(x), norm.eps, self.team)
        if norm.training and norm.track_running_stats:
            self._remember(mean, variance)
        if norm.affine:
            normal = normal * per_channel(norm.weight, x) + per_channel(norm.bias, x)
        return normal.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        norm = self.norm
        if norm.running_mean is None or norm.running_var is None:
            return
        norm.num_batches_tracked.add_(1)
        share = norm.momentum
        if share is None:  # a plain mean of all batches
            share = 1 / float(norm.num_batches_tracked)
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
        norm.running_var.lerp_(variance.to(norm.running_var.dtype), share)


class Standardised(torch.autograd.Function):
    """Values (B, C, ...) to mean 0 and variance 1 in each channel of all members' rows; also the
    means (C,) and the unbiased variances (C,)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, team: Team) -> tuple[Tensor, Tensor, Tensor]:
        channels, dims = x.shape[1], all_but_channels(x)
        variance, mean = torch.var_mean(x, dim=dims, correction=0)
        count = mean.new_full((1,), x.numel() // channels)
        own = torch.cat([mean, variance, count])[None]
        means, variances, counts = team.whole(own, team.size).split([channels, channels, 1], 1)
        count = counts.sum()
        mean = (counts * means).sum(dim=0) / count
        variance = (counts * (variances + (means - mean).square())).sum(dim=0) / count
        scale = (variance + eps).rsqrt()
        normal = (x - per_channel(mean, x)) * per_channel(scale, x)
        unbiased = variance * count / (count - 1)
        ctx.save_for_backward(normal, scale, count)
        ctx.team = team
        ctx.mark_non_differentiable(mean, unbiased)
        return normal, mean, unbiased

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """An image moves the mean and the variance of all members' rows."""
        normal, scale, count = ctx.saved_tensors
        gradient, dims = gradients[0], all_but_channels(normal)
        sums = torch.cat([gradient.sum(dim=dims), (gradient * normal).sum(dim=dims)])
        shift, stretch = (ctx.team.total(sums) / count).chunk(2)
        along = gradient - per_channel(shift, normal) - normal * per_channel(stretch, normal)
        return along * per_channel(scale, normal), None, None


def all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.dim())]


def per_channel(values: Tensor, like: Tensor) -> Tensor:
    """(C,) to (1, C, 1, ...), with the dimensions of `like`."""
    return values.view(1, -1, *[1] * (like.dim() - 2))
