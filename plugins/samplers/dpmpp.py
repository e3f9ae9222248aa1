"""DPM-Solver++ in its multistep form (arXiv 2211.01095, algorithm 2)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from fw.plugins.samplers.diffusers_scheduler import DiffusersScheduler


class DPMSolverPP(DiffusersScheduler):
    """DPM-Solver++(2M) (arXiv 2211.01095): deterministic, second order, about ten steps are
    enough."""

    name: ClassVar[str] = "dpmpp"

    steps: int = Field(10, ge=1, le=100_000, description="noise levels before zero")
    order: int = Field(
        2, ge=1, le=3, description="order of the solver; the paper advises 2 for guided sampling"
    )

    def scheduler(self, **options: Any) -> Any:
        from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

        return DPMSolverMultistepScheduler(
            **options, algorithm_type="dpmsolver++", solver_order=self.order
        )
