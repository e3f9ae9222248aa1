"""Averages of weights that are chosen after training: whether the training keeps what they are made
of, and how well they are made of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from fw.core.learning.posthoc import PowerAverage, error, kept_averages
from fw.core.recipe.arm import Arm
from fw.core.recipe.finding import Finding, Location, location_in_arm, location_of_section
from fw.core.recipe.model import Recipe
from fw.core.settings import Train

TOLERANCE = 0.05
"""An average that is made with a greater error is warned about. Neighbouring widths that people
compare, 0.05 and 0.06 say, are 0.15 apart in the same measure."""


class Choice(NamedTuple):
    """A width that an arm chooses, of which training, and where."""

    at: Location
    width: float
    train: Train


def choices(recipe: Recipe, name: str) -> Iterator[Choice]:
    arm: Arm = recipe.arm(name)
    at = location_of_section(recipe, name, "ema")
    for width in dict.fromkeys([arm.sampled_width, arm.probed_width]):
        if width is not None:
            yield Choice(at, width, arm.train)
    for sibling in arm.siblings:
        if sibling is not None and sibling.ema is not None:
            yield Choice(location_in_arm(recipe, name, "guidance"), sibling.ema, sibling.train)


def unmade_averages(recipe: Recipe, name: str) -> Iterator[Finding]:
    """Widths that are chosen of a training that tracks none."""
    for at, width, train in choices(recipe, name):
        if not train.averages:
            yield Finding(
                at,
                f"an average of relative width {width:g} is made of those that the training "
                "tracks, and it tracks none: set train.averages, to [0.05, 0.1] say, and "
                "train.snapshots, to 16",
            )


def rough_averages(recipe: Recipe) -> Iterator[Finding]:
    """Widths that the kept averages come close to, and not close enough."""
    chosen = (choice for name in recipe.arms for choice in choices(recipe, name))
    rough = {}
    for at, width, train in chosen:
        kept = kept_averages(train, train.steps)
        if (off := error(kept, PowerAverage(width, train.steps))) > TOLERANCE:
            rough[at] = (
                f"an average of relative width {width:g} is {off:.0%} off what averaging while "
                "training would give: track widths nearer to it (train.averages), or keep more "
                "(train.snapshots)"
            )
    yield from (Finding(at, reason) for at, reason in rough.items())
