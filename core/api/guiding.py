"""Other guidance than an arm's own, as whoever draws from it gives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fw.core.errors import FwError
from fw.core.kinds import Guidance, Steering
from fw.core.recipe.arm import Arm

Guiding = float | str | Mapping[str, Any] | Steering | Sequence[str | Mapping[str, Any] | Steering]
"""A scale for the arm's own mode; or what a recipe's `guidance` holds: modes and rules, one or a
list, as mappings, by name or as components. An empty list is none."""


def in_recipe(guidance: Guiding, arm: Arm, name: str) -> Any:
    """What the arm's recipe would say; FwError for a scale where it is not clear of what."""
    if isinstance(guidance, bool):
        raise FwError(f"guidance {guidance}: it is a scale, or modes as a recipe has them")
    if isinstance(guidance, int | float):
        return scaled(guidance, arm, name)
    if isinstance(guidance, str | Mapping | Steering):
        return spec(guidance)
    return [spec(entry) for entry in guidance]


def scaled(scale: float, arm: Arm, name: str) -> list[dict[str, Any]]:
    """The arm's own guidance with this scale."""
    modes = [entry for entry in arm.guidance if isinstance(entry, Guidance)]
    if len(modes) != 1:
        has = ", ".join(mode.name for mode in modes) or "none"
        raise FwError(
            f"guidance {scale:g}: a scale is of one mode, and arm {name} has {has}; name one, such "
            f"as {{'name': 'cfg', 'scale': {scale:g}}}"
        )
    return [
        {**entry.spec(), "scale": scale} if entry is modes[0] else entry.spec()
        for entry in arm.guidance
    ]


def spec(entry: str | Mapping[str, Any] | Steering) -> Any:
    return entry.spec() if isinstance(entry, Steering) else entry
