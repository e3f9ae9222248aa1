"""What a recipe that `fw sweep` wrote is: which arms are the points of which grid, and how the best
of them is to be read."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from fw.core.settings import Section


class Sweep(Section):
    """`{kind: grid, over: {guidance.0.scale: [1, 1.5, 2]}, points: [scale_1, scale_1.5, scale_2]}`;
    no key says it."""

    kind: Literal["grid", "search", "again"] = Field(
        description="grid: its points were fixed before; search: a sampler chose them by their "
        "scores; again: the best of either, scored on other seeds"
    )
    over: dict[str, tuple[Any, ...]] = Field(
        description="by key in the arm, the values that it might take"
    )
    points: tuple[str, ...] = Field(min_length=1, description="the arms that are points")
    metric: str | None = Field(
        None, description="the score that the points are ranked by; null is the headline"
    )
    trials: int | None = Field(
        None, ge=1, description="points that a search has tried, failed ones too"
    )
    failed: int = Field(0, ge=0, description="trials without a score, which are no arms")
    seed: int | None = Field(None, ge=0, description="that of the search's sampler")
    chosen_on: tuple[int, ...] = Field(
        (), description="the seeds of the trainings that the best was chosen by"
    )
    chosen_at: float | None = Field(None, description="what it scored there")
