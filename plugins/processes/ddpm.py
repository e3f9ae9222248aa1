"""DDPM's variance-preserving diffusion (arXiv 2006.11239; v: 2202.00512; cosine: 2102.09672 eq.
17)."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from fw.core.kinds import Coefficients, Process
from fw.core.machine.transfer import sent

Schedule = Literal["linear", "cosine"]

IN_TORCH = {
    "eps": "skip, out = torch.ones_like(sigma), -sigma",
    "v": "skip, out = scale.square(), -sigma * scale",
    "x0": "skip, out = torch.zeros_like(sigma), torch.ones_like(sigma)",
    "linear": "betas = torch.linspace(1e-4, 0.02, T)",
    "cosine": "f = [math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(T + 1)]\n"
    "betas = torch.tensor([min(1 - f[t + 1] / f[t], 0.999) for t in range(T)])",
}
"""The code of each choice, for model cards."""


class DDPM(Process):
    """Variance-preserving diffusion over discrete timesteps (arXiv 2006.11239), predicting eps, v
    or x0.

    In fw's coordinates sigma_t = sqrt((1 - abar_t) / abar_t), and the network sees x_t = x / sqrt(1
    + sigma^2). Its noise input is the timestep 0..T-1, interpolated in log sigma between the
    timesteps.
    """

    name: ClassVar[str] = "ddpm"

    prediction: Literal["eps", "v", "x0"] = Field("v", description="what the network predicts")
    schedule: Schedule = Field("cosine", description="how the noise grows over the timesteps")
    timesteps: int = Field(1000, ge=2, le=100_000, description="number of noise levels T")

    @model_validator(mode="after")
    def _finite(self) -> Self:
        if not math.isfinite(self.sigma_range[1]):
            raise ValueError(
                f"the {self.schedule} schedule ends in infinite noise after {self.timesteps} "
                "timesteps"
            )
        return self

    @property
    def provides(self) -> frozenset[str]:
        """Also its fields as a recipe writes them: a pretrained network may require other ones."""
        fields = (
            f"prediction: {self.prediction}, schedule: {self.schedule}, timesteps: {self.timesteps}"
        )
        return frozenset({"timesteps", f"process: {{name: ddpm, {fields}}}"})

    @property
    def sigma_range(self) -> tuple[float, float]:
        sigmas = sigma_table(self.schedule, self.timesteps)
        return float(sigmas[0]), float(sigmas[-1])

    def coefficients(self, sigma: Tensor) -> Coefficients:
        scale = 1 / (1 + sigma.square()).sqrt()  # sqrt(abar)
        match self.prediction:
            case "eps":
                skip, out = torch.ones_like(sigma), -sigma
            case "v":
                skip, out = scale.square(), -sigma * scale
            case "x0":
                skip, out = torch.zeros_like(sigma), torch.ones_like(sigma)
        return Coefficients(skip, out, scale, self.timestep(sigma))

    @property
    def in_torch(self) -> str:
        return "\n".join(
            [
                "scale = 1 / (1 + sigma.square()).sqrt()",
                IN_TORCH[self.prediction],
                f"T = {self.timesteps}",
                IN_TORCH[self.schedule],
                "abar = (1 - betas).cumprod(0).double()",
                "table = ((1 - abar) / abar).sqrt().log().to(sigma)  # log sigma of each timestep",
                "above = torch.searchsorted(table, sigma.log()).clamp(1, T - 1)",
                "low, high = table[above - 1], table[above]",
                "noise = (above - 1 + (sigma.log() - low) / (high - low)).clamp(0, T - 1)",
            ]
        )

    @property
    def scheduler(self) -> Mapping[str, Any]:
        return {
            "_class_name": "DDPMScheduler",
            "num_train_timesteps": self.timesteps,
            "beta_schedule": {"linear": "linear", "cosine": "squaredcos_cap_v2"}[self.schedule],
            "beta_start": 1e-4,
            "beta_end": 0.02,
            "prediction_type": {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}[
                self.prediction
            ],
        }

    def timestep(self, sigma: Tensor) -> Tensor:
        """The fractional timestep of noise levels (B,), held at 0 and T-1 beyond the table."""
        table = log_sigmas(self.schedule, self.timesteps, sigma.device, sigma.dtype)
        value = sigma.log()
        above = torch.searchsorted(table, value).clamp(1, self.timesteps - 1)
        low, high = table[above - 1], table[above]
        return (above - 1 + (value - low) / (high - low)).clamp(0, self.timesteps - 1)

    def sigmas(self, uniform: Tensor) -> Tensor:
        step = (uniform * self.timesteps).long().clamp(max=self.timesteps - 1)
        return log_sigmas(self.schedule, self.timesteps, uniform.device, uniform.dtype)[step].exp()


@functools.cache
def log_sigmas(
    schedule: Schedule, timesteps: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """The table (T,) on a device: copied there once, since every copy would make a GPU wait."""
    with torch.inference_mode(False):
        return sent(sigma_table(schedule, timesteps).log().to(dtype), device)


@functools.cache
def sigma_table(schedule: Schedule, timesteps: int) -> Tensor:
    """sigma_t, float64 (T,), increasing."""
    with torch.inference_mode(False):
        abar = alphas_cumprod(schedule, timesteps).double()
        return ((1 - abar) / abar).sqrt()


def alphas_cumprod(schedule: Schedule, timesteps: int) -> Tensor:
    """abar_t = prod_{s <= t} (1 - beta_s), in float32 as in diffusers, so that weights trained
    there fit."""
    if schedule == "linear":
        betas = torch.linspace(1e-4, 0.02, timesteps)
    else:
        cosine = [
            math.cos((t / timesteps + 0.008) / 1.008 * math.pi / 2) ** 2
            for t in range(timesteps + 1)
        ]
        betas = torch.tensor([min(1 - cosine[t + 1] / cosine[t], 0.999) for t in range(timesteps)])
    return (1 - betas).cumprod(0)
