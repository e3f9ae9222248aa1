"""EDM's preconditioning and log-normal noise levels (arXiv 2206.00364, table 1 and section 5)."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator
from torch import Tensor

from fw.core.kinds import Coefficients, Process
from fw.core.types import LARGEST
from fw.plugins.processes.log_normal import log_normal, trained_range


class EDM(Process):
    """EDM (arXiv 2206.00364): inputs and targets of unit variance at all noise, a log-normal sigma.

    The paper's loss weight lambda = 1 / c_out^2 is a weight of one on the squared error of F.
    """

    name: ClassVar[str] = "edm"
    version: ClassVar[int] = 2

    sigma_data: float = Field(0.5, ge=1e-18, le=1e18, description="standard deviation of the data")
    p_mean: float = Field(-1.2, description="mean of ln sigma in training")
    p_std: float = Field(1.2, gt=0, description="standard deviation of ln sigma in training")
    sigma_min: float = Field(0.002, ge=1e-37, description="smallest noise level")
    sigma_max: float = Field(80.0, gt=0, le=LARGEST, description="largest noise level")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(
                f"sigma_min ({self.sigma_min}) must be smaller than sigma_max ({self.sigma_max})"
            )
        _ = self.sigma_range
        return self

    @property
    def sigma_range(self) -> tuple[float, float]:
        """sigma_min to sigma_max, as far as training draws such levels; by default it does."""
        return trained_range(self.p_mean, self.p_std, (self.sigma_min, self.sigma_max))

    @property
    def data_std(self) -> float:
        return self.sigma_data

    def coefficients(self, sigma: Tensor) -> Coefficients:
        scale = 1 / (sigma.square() + self.sigma_data**2).sqrt()
        return Coefficients(
            skip=(self.sigma_data * scale).square(),
            out=sigma * self.sigma_data * scale,
            scale=scale,
            noise=sigma.log() / 4,
        )

    @property
    def in_torch(self) -> str:
        return "\n".join(
            [
                f"sigma_data = {self.sigma_data!r}",
                "scale = 1 / (sigma.square() + sigma_data**2).sqrt()",
                "skip, out = (sigma_data * scale).square(), sigma * sigma_data * scale",
                "noise = sigma.log() / 4",
            ]
        )

    def sigmas(self, uniform: Tensor) -> Tensor:
        return log_normal(uniform, self.p_mean, self.p_std, self.sigma_range)
