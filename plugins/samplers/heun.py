"""EDM's stochastic second-order sampler (arXiv 2206.00364, algorithm 2), which diffusers lacks."""

from __future__ import annotations

import itertools
import math
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from fw.core.kinds import Denoise
from fw.core.randomness import Draws
from fw.core.types import LARGEST
from fw.plugins.samplers.noise_levels import NoiseLevels, Spacing


class Heun(NoiseLevels):
    """EDM's sampler (arXiv 2206.00364, algorithm 2): churn noise, then a step of Heun's method in
    sigma.

    Two evaluations per step but the last, so nfe = 2 * steps - 1. It averages the slopes at both
    ends of a step, so long steps at high noise cost it dearly: 18 steps of `karras` from the end of
    ddpm's cosine schedule, 20,291, widen data by 40 %, and from 80, the paper's, by 5 %.
    """

    name: ClassVar[str] = "heun"
    version: ClassVar[int] = 3

    steps: int = Field(18, ge=1, le=100_000, description="noise levels before zero")
    schedule: Spacing = Field(
        "karras", description="how the noise levels are spaced; the paper's is karras"
    )
    order: Literal[1, 2] = Field(2, description="2 is Heun, 1 is Euler")
    churn: float = Field(
        0.0, ge=0, description="S_churn: fresh noise over all steps; 0 is deterministic"
    )
    churn_min: float = Field(0.0, ge=0, description="S_min: smallest noise level that is churned")
    churn_max: float | None = Field(
        None, ge=0, description="S_max: largest noise level that is churned; null is all"
    )
    churn_noise: float = Field(
        1.0, ge=0, le=LARGEST, description="S_noise: standard deviation of the fresh noise"
    )

    @property
    def nfe(self) -> int:
        return self.steps if self.order == 1 else 2 * self.steps - 1

    def sample(self, denoise: Denoise, noise: Tensor, draws: Draws) -> Tensor:
        sigmas = [*self.levels(denoise), 0.0]
        x = sigmas[0] * noise
        for level, target in itertools.pairwise(sigmas):
            sigma = min(level * (1 + self._gamma(level)), denoise.sigma_max)
            if sigma > level:
                fresh = draws.normal(*x.shape[1:]).to(x)
                x = x + self.churn_noise * math.sqrt(sigma**2 - level**2) * fresh
            slope = (x - self.denoised(denoise, x, sigma)) / sigma
            ahead = x + (target - sigma) * slope
            if self.order == 2 and target > 0:
                slope_ahead = (ahead - self.denoised(denoise, ahead, target)) / target
                ahead = x + (target - sigma) * (slope + slope_ahead) / 2
            x = ahead
        return x

    def _gamma(self, sigma: float) -> float:
        """The share by which sigma is raised before a step; at most, the variance doubles."""
        inside = self.churn_min <= sigma and (self.churn_max is None or sigma <= self.churn_max)
        return min(self.churn / self.steps, math.sqrt(2) - 1) if inside else 0.0
