"""DDPM's ancestral sampling (arXiv 2006.11239, eqs. 6 and 7)."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from fw.core.randomness import Draws
from fw.plugins.samplers.diffusers_scheduler import DiffusersScheduler
from fw.registry import Neutral


class Ancestral(DiffusersScheduler):
    """DDPM's ancestral sampling (arXiv 2006.11239); wants many steps."""

    name: ClassVar[str] = "ddpm"
    version: ClassVar[int] = 2

    steps: int = Field(250, ge=1, le=100_000, description="noise levels before zero")
    variance: Annotated[Literal["small", "large"], Neutral("small")] = Field(
        "small",
        description="of the fresh noise: the posterior's, or a step's beta (large), which the "
        "paper's code has for CIFAR-10 and which fits 1000 steps",
    )

    def scheduler(self, **options: Any) -> Any:
        """DDIM's, which is DDPM's at eta 1 (arXiv 2010.02502, section 4.1), and which takes noise
        that was drawn for it; diffusers' DDPM draws its own, image by image."""
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        return DDIMScheduler(**options, clip_sample=False)

    def step_options(self, x: Tensor, draws: Draws, sigma: float, target: float) -> dict[str, Any]:
        noise = draws.normal(*x.shape[1:]).to(x)
        if self.variance == "large" and target > 0:
            # From the posterior's standard deviation to the root of beta: sqrt((1 - abar) / (1 -
            # abar')), where abar' is that of the target.
            noise = noise * ((sigma / math.hypot(1, sigma)) / (target / math.hypot(1, target)))
        return {"eta": 1.0, "variance_noise": noise}
