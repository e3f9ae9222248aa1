"""Variance-exploding diffusion (arXiv 2011.13456) in EDM's form (arXiv 2206.00364, table 1)."""

from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from fw.core.kinds import Coefficients, Process
from fw.registry import hookimpl

FW_API = 2


class Example(Process):
    """Variance-exploding diffusion (arXiv 2011.13456): the network predicts the negative of the
    noise."""

    name: ClassVar[str] = "example"

    sigma_min: float = Field(0.02, gt=0, description="smallest noise level")
    sigma_max: float = Field(20.0, gt=0, description="largest noise level")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(
                f"sigma_min ({self.sigma_min}) must be smaller than sigma_max ({self.sigma_max})"
            )
        return self

    @property
    def sigma_range(self) -> tuple[float, float]:
        return self.sigma_min, self.sigma_max

    def coefficients(self, sigma: Tensor) -> Coefficients:
        one = torch.ones_like(sigma)
        return Coefficients(skip=one, out=sigma, scale=one, noise=(sigma / 2).log())  # (B,) each

    def sigmas(self, uniform: Tensor) -> Tensor:
        return (
            self.sigma_min * (self.sigma_max / self.sigma_min) ** uniform
        )  # (B,), uniform in log sigma


@hookimpl
def fw_components() -> list[type[Process]]:
    return [Example]
