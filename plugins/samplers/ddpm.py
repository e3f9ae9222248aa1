"""DDPM's ancestral sampling (arXiv 2006.11239, eqs. 6 and 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field

from fw.plugins.samplers.diffusers_scheduler import DiffusersScheduler
from fw.registry import Neutral


class Ancestral(DiffusersScheduler):
    """DDPM's ancestral sampling (arXiv 2006.11239); wants many steps."""

    name: ClassVar[str] = "ddpm"

    steps: int = Field(250, ge=1, le=100_000, description="noise levels before zero")

    variance: Annotated[Literal["small", "large"], Neutral("small")] = Field(
        "small",
        description="of the fresh noise: the posterior's, or a step's beta (large), which the "
        "paper's code has for CIFAR-10 and which fits 1000 steps",
    )

    def scheduler(self, **options: Any) -> Any:
        from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

        return DDPMScheduler(**options, clip_sample=False, variance_type=f"fixed_{self.variance}")

    def step_options(self, generators: Sequence[torch.Generator]) -> dict[str, Any]:
        return {"generator": list(generators)}
