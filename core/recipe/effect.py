"""What of a recipe will do nothing, as far as it can be told beforehand: nobody else says so, and the scores of an arm
that is called guided look like any others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from fw.core.kinds import Guidance, Objective, Process, Sampler
from fw.core.learning.objectives import taken
from fw.core.recipe.arm import Arm
from fw.core.recipe.finding import Finding, location_in_arm
from fw.core.recipe.model import Recipe

MOST_CALLS = 20_000
"""A sampler that asks more often is not asked when."""

DRAWS = 100_000
"""Noise levels of training that are looked at, evenly over their distribution."""


class Acting(NamedTuple):
    """In how many of the sampler's calls a guidance mode acts."""

    mode: Guidance
    calls: int
    of: int


def acting(arm: Arm) -> list[Acting]:
    """How often each of the arm's guidance modes acts that is on, of those for which the sampler says when it asks."""
    found = []
    levels: Sequence[float] | None = None
    for mode in arm.modes:
        if mode.idle() is not None:
            found.append(Acting(mode, 0, arm.sampler.nfe))
        elif mode.interval is None:
            found.append(Acting(mode, arm.sampler.nfe, arm.sampler.nfe))
        elif levels := levels or asked(arm.sampler, arm.process):
            found.append(Acting(mode, sum(map(mode.active, levels)), len(levels)))
    return found


def asked(sampler: Sampler, process: Process) -> Sequence[float]:
    """The noise levels at which the denoiser will be asked; none if the sampler cannot say before there is one."""
    if sampler.nfe > MOST_CALLS:
        return ()
    try:
        return sampler.asks(process.sigma_range)
    except Exception:  # it may need more than a grey image, and that is no fault of the recipe
        return ()


def without_effect(recipe: Recipe) -> Iterator[Finding]:
    """What will do nothing although the recipe names it."""
    first: dict[str, Arm] = {}
    for name in recipe.arms:
        arm = recipe.arm(name)
        yield from idle_guidance(recipe, name, arm)
        yield from unlearned(recipe, name, arm)
        for twin in (other for other, like in first.items() if alike(like, arm)):
            yield Finding(("arms", name), f"it is the same as arm {twin}, whose work and scores it shares")
            break
        else:
            first[name] = arm


def idle_guidance(recipe: Recipe, name: str, arm: Arm) -> Iterator[Finding]:
    """Guidance modes that never act, rules that change nothing, and conditions that are drawn for nobody."""
    at = location_in_arm(recipe, name, "guidance")
    for each in arm.guidance:
        if reason := each.idle():
            yield Finding(at, f"guidance '{each.name}' changes nothing: {reason}")
    for mode, calls, _ in acting(arm):
        if not calls and mode.idle() is None and mode.interval is not None:
            levels = asked(arm.sampler, arm.process)
            low, high = mode.interval
            yield Finding(
                at,
                f"guidance '{mode.name}' never acts: its interval is ({low:g}, {high:g}], and sampler "
                f"'{arm.sampler.name}' asks the model {len(levels)} times, at sigma {max(levels):.4g} to "
                f"{min(levels):.4g}",
            )
    judged = any(metric.reads_conditions and arm.scored_by(metric) for metric in recipe.metrics)
    if arm.drawn_from is not None and arm.joint is not None and not arm.modes and not judged:
        yield Finding(
            location_in_arm(recipe, name, "prior"),
            f"prior '{arm.drawn_from.name}' changes no sample: a joint model is not told conditions, and no guidance "
            "reads them",
        )


def unlearned(recipe: Recipe, name: str, arm: Arm) -> Iterator[Finding]:
    """What training will hardly ever see."""
    images = arm.train.steps * arm.train.batch
    nulls, told = arm.train.cond_drop * images, (1 - arm.train.cond_drop) * images
    if arm.annotator is not None and arm.takes_conditions:
        at = location_in_arm(recipe, name, "train")
        if any("null" in mode.requires for mode in arm.modes) and nulls < 1 and not arm.annotator.partial:
            yield Finding(at, f"train.cond_drop {arm.train.cond_drop:g}: {hardly(nulls, images)} without a condition")
        if told < 1:
            yield Finding(at, f"train.cond_drop {arm.train.cond_drop:g}: {hardly(told, images)} with a condition")
    if arm.online is not None and round(arm.online.start * arm.train.steps) >= arm.train.steps:
        yield Finding(
            location_in_arm(recipe, name, "annotator"),
            f"annotator '{arm.online.name}' starts after the last of {arm.train.steps} steps: the model learns "
            "without conditions",
        )
    for objective in arm.objectives:
        seen = share(objective, arm.process) * images
        if seen < 1:
            low, high = objective.interval or arm.process.sigma_range
            yield Finding(
                location_in_arm(recipe, name, "objectives"),
                f"objective '{objective.name}' takes noise levels from {low:g} to {high:g}: {hardly(seen, images)} of "
                "these",
            )


def hardly(count: float, images: int) -> str:
    return f"the model will learn about {count:.2g} of its {images:,} images"


def share(objective: Objective, process: Process) -> float:
    """The share of the noise levels of training that the objective's interval takes in."""
    if objective.interval is None:
        return 1.0
    uniform = (torch.arange(DRAWS) + 0.5) / DRAWS
    return float(taken(objective, process.sigmas(uniform)).double().mean())


def alike(one: Arm, other: Arm) -> bool:
    """Whether two arms are the same work under two names."""
    parts = ("conditioner", "annotator", "drawn_from", *Arm.model_fields.keys() - {"encoder", "annotator", "prior"})
    return all(getattr(one, part) == getattr(other, part) for part in parts)
