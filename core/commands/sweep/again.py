"""The best point of a sweep beside the baseline, from seeds that have not chosen it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fw.core.commands.sweep.base import Base
from fw.core.commands.sweep.points import Point, recipe_data
from fw.core.report.selection import best_point, mean_of

SEEDS = 3
"""Trainings of the best point of a search, and of the baseline, unless the user asks for others."""


def again_data(
    base: Base, points: Mapping[str, Point], result: Mapping[str, Any], seeds: int
) -> dict[str, Any] | None:
    """The recipe, as plain data, that scores the best of the points by name anew; None where no
    point has a score. Another seed makes another training and other noise to sample from."""
    if (best := best_point(result)) is None:
        return None
    sweep = result["sweep"]
    data = recipe_data(
        base,
        [points[best]],
        f"{sweep['kind'].replace('grid', 'sweep')}_again",
        kind="again",
        metric=sweep["metric"],
        trials=sweep["trials"],
        chosen_on=tuple(base.recipe.seeds),
        chosen_at=mean_of(result, best, result["headline"]),
    )
    [arm], arms = data["sweep"]["points"], data.pop("arms")
    seeded = {"seed": base.recipe.seeds[-1] + 1, "repeats": seeds}
    return {**data, **seeded, "question": {"better": arm}, "arms": arms}
