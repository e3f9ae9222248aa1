"""DDIM (arXiv 2010.02502, eqs. 12 and 16)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from fw.core.randomness import Draws
from fw.plugins.samplers.diffusers_scheduler import DiffusersScheduler


class DDIM(DiffusersScheduler):
    """DDIM (arXiv 2010.02502): first order, deterministic at eta 0, DDPM's ancestral sampling at
    eta 1."""

    name: ClassVar[str] = "ddim"
    version: ClassVar[int] = 2

    steps: int = Field(60, ge=1, le=100_000, description="noise levels before zero")
    eta: float = Field(
        0.0, ge=0, le=1, description="share of fresh noise: 0 is deterministic, 1 is DDPM"
    )

    def scheduler(self, **options: Any) -> Any:
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        return DDIMScheduler(**options, clip_sample=False)

    def step_options(self, x: Tensor, draws: Draws, sigma: float, target: float) -> dict[str, Any]:
        if self.eta == 0:
            return {}
        return {"eta": self.eta, "variance_noise": draws.normal(*x.shape[1:]).to(x)}
