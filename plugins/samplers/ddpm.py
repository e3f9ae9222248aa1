"""DDPM's ancestral sampling (arXiv 2006.11239, eqs. 6 and 7)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from fw.core.randomness import Draws
from fw.plugins.samplers.diffusers_scheduler import DiffusersScheduler


class Ancestral(DiffusersScheduler):
    """DDPM's ancestral sampling (arXiv 2006.11239) with the posterior's variance; wants many
    steps."""

    name: ClassVar[str] = "ddpm"
    version: ClassVar[int] = 2

    steps: int = Field(250, ge=1, le=100_000, description="noise levels before zero")

    def scheduler(self, **options: Any) -> Any:
        """DDIM's, which is DDPM's at eta 1 (arXiv 2010.02502, section 4.1), and which takes noise
        that was drawn for it; diffusers' DDPM draws its own, image by image."""
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        return DDIMScheduler(**options, clip_sample=False)

    def step_options(self, x: Tensor, draws: Draws) -> dict[str, Any]:
        return {"eta": 1.0, "variance_noise": draws.normal(*x.shape[1:]).to(x)}
