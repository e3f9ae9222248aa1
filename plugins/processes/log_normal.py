"""Training noise levels whose logarithm is normal (arXiv 2206.00364, section 5), and how far they
reach."""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor

RARE = 1e-6
"""The share of training images that lie beyond a level that counts as trained. EDM samples from
80, which 1.6 in a million of its training images exceed."""


def trained_range(mean: float, std: float, bounds: tuple[float, float]) -> tuple[float, float]:
    """The noise levels within `bounds` that training draws, where ln sigma ~ N(mean, std^2).

    A network is not to be asked at others: it never learned them. ValueError if there are none.
    """
    least, most = map(math.log, bounds)
    reach = std * NormalDist().inv_cdf(1 - RARE)
    if mean - reach < most and mean + reach > least:
        low = bounds[0] if mean - reach <= least else math.exp(mean - reach)
        high = bounds[1] if mean + reach >= most else math.exp(mean + reach)
        if low < high:
            return low, high
    raise ValueError(
        f"training would draw no noise levels from {bounds[0]:.4g} to {bounds[1]:.4g}: the "
        f"logarithm of sigma has the mean {mean:g} and the standard deviation {std:g}"
    )


def log_normal(uniform: Tensor, mean: float, std: float, trained: tuple[float, float]) -> Tensor:
    """Noise levels (B,) from uniform numbers (B,) in [0, 1), held within the trained range."""
    low, high = map(math.log, trained)
    normal = torch.special.ndtri(uniform)  # -inf at 0, which the clamp takes in
    return (mean + std * normal).clamp(low, high).exp()
