"""Rectified flow, also flow matching (arXiv 2209.03003, 2210.02747), with the times of SD3
(2403.03206)."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from fw.core.kinds import Coefficients, Process
from fw.plugins.processes.log_normal import log_normal, trained_range


class Flow(Process):
    """Rectified flow (arXiv 2209.03003): x_t = (1 - t) x0 + t n; the network predicts the velocity
    n - x0.

    In fw's coordinates sigma = t / (1 - t) and x_t = x / (1 + sigma), so a logit-normal t (arXiv
    2403.03206) is a log-normal sigma. It hardly ever comes near 0 and 1: the noise levels end where
    one training image in a million lies beyond, by default at t 0.0086 and 0.9914. The network's
    noise input is 1000 t.
    """

    name: ClassVar[str] = "flow"
    version: ClassVar[int] = 2

    time: Literal["logit_normal", "uniform"] = Field(
        "logit_normal", description="distribution of t in training"
    )
    mean: float = Field(0.0, description="mean of logit t, for logit_normal")
    std: float = Field(1.0, gt=0, description="standard deviation of logit t, for logit_normal")
    t_min: float = Field(0.001, gt=0, lt=1, description="smallest time at the least")
    t_max: float = Field(
        0.999, gt=0, lt=1, description="largest time at the most; pure noise would be 1"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.t_min >= self.t_max:
            raise ValueError(f"t_min ({self.t_min}) must be smaller than t_max ({self.t_max})")
        _ = self.sigma_range
        return self

    @property
    def sigma_range(self) -> tuple[float, float]:
        ends = self.t_min / (1 - self.t_min), self.t_max / (1 - self.t_max)
        return ends if self.time == "uniform" else trained_range(self.mean, self.std, ends)

    def coefficients(self, sigma: Tensor) -> Coefficients:
        scale = 1 / (1 + sigma)  # 1 - t
        t = sigma * scale
        return Coefficients(skip=scale, out=-t, scale=scale, noise=1000 * t)

    @property
    def in_torch(self) -> str:
        return "\n".join(
            [
                "scale = 1 / (1 + sigma)  # 1 - t",
                "t = sigma * scale",
                "skip, out, noise = scale, -t, 1000 * t",
            ]
        )

    def sigmas(self, uniform: Tensor) -> Tensor:
        if self.time == "uniform":
            t = self.t_min + (self.t_max - self.t_min) * uniform
            return t / (1 - t)
        return log_normal(uniform, self.mean, self.std, self.sigma_range)
