"""One pixel of two kinds of images: 0.7 N(-0.5, 0.1^2) + 0.3 N(0.5, 0.1^2), whose denoiser is
exact."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fw.core.kinds import Process, Sampler
from fw.core.randomness import Draws

MEANS = torch.tensor([-0.5, 0.5], dtype=torch.float64)
WEIGHTS = torch.tensor([0.7, 0.3], dtype=torch.float64)
STD = 0.1
VARIANCE = 0.21 + STD**2

PIXELS = 20_000


class Mixture:
    """E[x0 | x] in float64."""

    def __init__(self, sigma_range: tuple[float, float]):
        self.sigma_min, self.sigma_max = sigma_range

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        gaps = x[..., None].double() - MEANS
        variance = STD**2 + sigma**2
        shares = (WEIGHTS.log() - gaps.square() / (2 * variance)).softmax(-1)
        return (shares * (MEANS + STD**2 / variance * gaps)).sum(-1)


@dataclass
class Sampled:
    """What samples have; the truth is VARIANCE, 0.7 and 0.1 twice."""

    variance: float
    left: float
    """The share of the left mode."""
    modes: tuple[float, float]
    """The standard deviations of both."""


def sampled(sampler: Sampler, process: Process) -> Sampled:
    """From noise that is spread evenly over its distribution."""
    uniform = (torch.arange(PIXELS, dtype=torch.float64) + 0.5) / PIXELS
    noise = torch.special.ndtri(uniform).view(1, 1, 1, -1)
    x = sampler.sample(Mixture(process.sigma_range), noise, Draws("mixture", rows=range(1)))
    assert x.dtype == torch.float64
    left, right = x[x < 0], x[x >= 0]
    share = len(left) / PIXELS
    assert math.isfinite(float(x.sum()))
    return Sampled(float(x.var()), share, (float(left.std()), float(right.std())))
