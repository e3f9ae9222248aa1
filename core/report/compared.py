"""Two arms side by side in one score, and what is decided of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fw.core.recipe.comparisons import Role

Decision = Literal["better", "worse", "undecided"]


@dataclass(frozen=True)
class Compared:
    """As run.json has it."""

    arm: str
    than: str
    role: Role
    mean: float
    mean_of_than: float
    values: tuple[float, ...]
    """The difference of each pair of trainings."""
    difference: float
    """Their mean."""
    interval: tuple[float, float] | None
    """That covers the difference in 95 of 100 cases, by itself."""
    p: float | None
    """Of no difference, by itself."""
    spread: float | None
    """Standard deviation of the difference over sampling seeds of the same trainings; None of one
    sampling seed."""
    adjusted: float | None = None
    """`p` among all comparisons of the verdict."""
    decision: Decision = "undecided"
    left_out: int = 0
    """Trainings that only one of both has."""

    @property
    def trainings(self) -> int:
        return len(self.values)
