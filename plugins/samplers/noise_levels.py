"""The noise levels of all samplers: where they begin and end, how many there are and how they are
spaced."""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from fw.core.kinds import Denoise, Sampler
from fw.core.types import LARGEST

Spacing = Literal["logistic", "karras", "cosine", "linear", "vp"]
RHO = 7
BETA_MIN, BETA_GROWTH = 0.1, 19.9
"""DDPM's linear betas in continuous time 0..1: beta(t) = BETA_MIN + BETA_GROWTH t."""

SIGNAL = 0.002, 80.0
"""Where noise levels lie unless a recipe says otherwise: those of EDM (arXiv 2206.00364, table 1).

Above 80 there is nothing to denoise in data of unit range. Sampling starts from pure noise in place
of x0 + sigma * n, and for Gaussian data of mean m and standard deviation s the exact solution then
ends at m (1 - s / sqrt(s^2 + sigma^2)) with the spread s / sqrt(1 + s^2 / sigma^2): for s = 0.5
from 80, the mean is 0.6 % short and the spread 0.002 %. Steps spent above buy less than that and
are missing below: DDPM's cosine schedule goes on to 20,291, flow matching to the odds of its
largest time. Below 0.002 noise is finer than the rounding to 8 bits, 2 / 255 / sqrt(12).
"""


class NoiseLevels(Sampler):
    """A sampler that walks down `steps` noise levels and then to zero."""

    steps: int = Field(20, ge=1, le=100_000, description="noise levels before zero")
    schedule: Spacing = Field(
        "logistic",
        description=(
            "evenly in the logistic function of log(sigma) / 2 (logistic), sigma^(1/7) (karras), "
            "arctan sigma (cosine), sigma / (1 + sigma) (linear) or the time of DDPM's linear "
            "betas (vp)"
        ),
    )
    sigma_min: float | None = Field(
        None,
        gt=0,
        description="where the spacing ends; null is the model's smallest, 0.002 at the least",
    )
    sigma_max: float | None = Field(
        None, gt=0, description="first noise level; null is the model's largest, 80 at the most"
    )
    clip: float | None = Field(
        1.0, gt=0, le=LARGEST, description="clamp predicted x0 to [-clip, clip]; null for latents"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        low, high = self.sigma_min, self.sigma_max
        if low is not None and high is not None and low >= high:
            raise ValueError(f"sigma_min ({low}) must be smaller than sigma_max ({high})")
        return self

    @property
    def requires(self) -> frozenset[str]:
        return frozenset() if self.clip is None else frozenset({"pixels"})

    @property
    def nfe(self) -> int:
        return self.steps

    def check(self, sigma_range: tuple[float, float]) -> None:
        least, most = sigma_range
        low, high = self._bounds(sigma_range)
        if not least <= low < high <= most:
            raise ValueError(
                f"sampler {self.name} would go from sigma_max {high:g} to sigma_min {low:g}, but "
                "the model is trained "
                f"from {most:g} to {least:g}: stay within that, or leave them out"
            )

    def levels(self, denoise: Denoise) -> list[float]:
        """`steps` decreasing noise levels, without the final zero.

        `cosine` spaces the angle of cosine schedules evenly, `linear` the time of rectified flow,
        sigma / (1 + sigma), which is the logistic function of log sigma. Both have most levels at
        the scale of the data and reach zero by a long step, which blurs detail. Even steps in log
        sigma (arXiv 2206.00927) do not, and spend most of them elsewhere. `logistic`, of
        log(sigma) / 2, lies between. After 20 steps of dpmpp, Gaussian data of standard deviation
        0.5 and 0.1 have 1.01 and 1.01 of their spread by `logistic`, 1.01 and 0.86 by `linear`,
        1.00 and 0.76 by `cosine`, 1.01 and 1.01 by even log sigma; images of a network trained on
        digits are 0.017, 0.012, 0.017 and 0.026 off the exact solution (root mean square).

        These make `steps` intervals, and the last one goes to zero instead of sigma_min: a level at
        sigma_min itself would make the step before it so long in log sigma that multistep solvers
        extrapolate wildly. `karras` is arXiv 2206.00364 eq. 5, whose last steps are short, so it
        does include sigma_min. So does `vp`, the time of DDPM's linear betas (arXiv 2206.00364,
        table 1): 1000 levels between the ends of DDPM's timesteps are those, within 3 %.
        """
        trained = denoise.sigma_min, denoise.sigma_max
        self.check(trained)
        low, high = self._bounds(trained)
        match self.schedule:
            case "logistic":
                place = evenly(logistic(high), logistic(low), self.steps + 1)[:-1]
                sigmas = (place / (1 - place)).square()
            case "karras":
                sigmas = evenly(high ** (1 / RHO), low ** (1 / RHO), self.steps) ** RHO
            case "cosine":
                sigmas = evenly(math.atan(high), math.atan(low), self.steps + 1)[:-1].tan()
            case "linear":
                time = evenly(high / (1 + high), low / (1 + low), self.steps + 1)[:-1]
                sigmas = time / (1 - time)
            case "vp":
                time = evenly(vp_time(high), vp_time(low), self.steps)
                sigmas = (BETA_GROWTH * time**2 / 2 + BETA_MIN * time).expm1().sqrt()
        return sigmas.tolist()

    def denoised(self, denoise: Denoise, x: Tensor, sigma: float) -> Tensor:
        """The predicted x0 (B, C, H, W), clamped."""
        x0 = denoise(x, sigma)
        return x0 if self.clip is None else x0.clamp(-self.clip, self.clip)

    def _bounds(self, sigma_range: tuple[float, float]) -> tuple[float, float]:
        """Where the spacing ends and starts: the fields, or else what of the trained range has
        signal; the trained range itself where that leaves nothing."""
        least, most = sigma_range
        low, high = self.sigma_min or least, self.sigma_max or most
        finest, coarsest = SIGNAL
        if self.sigma_max is None and low < coarsest:
            high = min(high, coarsest)
        if self.sigma_min is None and finest < high:
            low = max(low, finest)
        return low, high


def logistic(sigma: float) -> float:
    """Of log(sigma) / 2: 0 at no noise, 1/2 at 1, 1 at infinite noise."""
    return math.sqrt(sigma) / (1 + math.sqrt(sigma))


def vp_time(sigma: float) -> float:
    """When a process with DDPM's linear betas has this noise level."""
    grown = BETA_MIN**2 + 2 * BETA_GROWTH * math.log1p(sigma**2)
    return (math.sqrt(grown) - BETA_MIN) / BETA_GROWTH


def evenly(start: float, end: float, count: int) -> Tensor:
    return torch.linspace(start, end, count, dtype=torch.float64)
