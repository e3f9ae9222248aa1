"""DDPM's ancestral sampling (arXiv 2006.11239, eqs. 6 and 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field

from fw.plugins.samplers.diffusers_scheduler import DiffusersScheduler


class Ancestral(DiffusersScheduler):
    """DDPM's ancestral sampling (arXiv 2006.11239) with the posterior's variance; wants many
    steps."""

    name: ClassVar[str] = "ddpm"

    steps: int = Field(250, ge=1, le=100_000, description="noise levels before zero")

    def scheduler(self, **options: Any) -> Any:
        from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

        return DDPMScheduler(**options, clip_sample=False, variance_type="fixed_small")

    def step_options(self, generators: Sequence[torch.Generator]) -> dict[str, Any]:
        return {"generator": list(generators)}
