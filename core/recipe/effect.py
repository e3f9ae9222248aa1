"""Parts of a recipe that will have no effect, as far as that is known before a run. Nothing else
would show it: the scores of an arm whose guidance never acts look like any others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from fw.core.kinds import Guidance, Objective, Process, Sampler
from fw.core.learning.averages import untrained
from fw.core.learning.parts.objectives import taken
from fw.core.recipe.arm import Arm
from fw.core.recipe.finding import Finding, location_in_arm, location_of_section
from fw.core.recipe.model import Recipe

MOST_CALLS = 20_000
"""The calls of a sampler with more of them are not listed."""

UNTRAINED = 0.01
"""More than this of the weights of the beginning in the averaged ones is warned of."""

DRAWS = 100_000
"""Noise levels of training that are checked, spread evenly over their distribution."""


class Acting(NamedTuple):
    """In how many of the sampler's `calls` a guidance mode `acts`."""

    mode: Guidance
    acts: int
    calls: int


def acting(arm: Arm) -> list[Acting]:
    """How often each of the arm's guidance modes that are on acts, where the sampler's noise
    levels are known."""
    modes = []
    levels: Sequence[float] | None = None
    for mode in arm.modes:
        if mode.idle() is not None:
            modes.append(Acting(mode, 0, arm.sampler.nfe))
        elif mode.interval is None:
            modes.append(Acting(mode, arm.sampler.nfe, arm.sampler.nfe))
        elif levels := levels or sampler_levels(arm.sampler, arm.process):
            modes.append(Acting(mode, sum(map(mode.active, levels)), len(levels)))
    return modes


def sampler_levels(sampler: Sampler, process: Process) -> Sequence[float]:
    """The noise levels at which the denoiser will be called; empty if the sampler cannot say so
    without it."""
    if sampler.nfe > MOST_CALLS:
        return ()
    try:
        return sampler.asks(process.sigma_range)
    except Exception:  # it may need more than a grey image, and that is no fault of the recipe
        return ()


def without_effect(recipe: Recipe) -> Iterator[Finding]:
    """What the recipe names and what will have no effect."""
    yield from dict.fromkeys(untrained_averages(recipe))
    first: dict[str, Arm] = {}
    for name in recipe.arms:
        arm = recipe.arm(name)
        yield from idle_guidance(recipe, name, arm)
        yield from unlearned(recipe, name, arm)
        for twin in (other for other, like in first.items() if alike(like, arm)):
            yield Finding(
                ("arms", name), f"it is the same as arm {twin}, whose work and scores it shares"
            )
            break
        else:
            first[name] = arm


def idle_guidance(recipe: Recipe, name: str, arm: Arm) -> Iterator[Finding]:
    """Guidance modes that never act, rules that change nothing, and priors whose conditions
    nothing reads."""
    at = location_in_arm(recipe, name, "guidance")
    for each in arm.guidance:
        if reason := each.idle():
            yield Finding(at, f"guidance '{each.name}' changes nothing: {reason}")
    for mode, acts, _ in acting(arm):
        if not acts and mode.idle() is None and mode.interval is not None:
            levels = sampler_levels(arm.sampler, arm.process)
            low, high = mode.interval
            yield Finding(
                at,
                f"guidance '{mode.name}' never acts: its interval is ({low:g}, {high:g}], and "
                f"sampler '{arm.sampler.name}' asks the model {len(levels)} times, at sigma "
                f"{max(levels):.4g} to {min(levels):.4g}",
            )
    judged = any(metric.reads_conditions and arm.scored_by(metric) for metric in recipe.metrics)
    if arm.drawn_from is not None and arm.joint is not None and not arm.modes and not judged:
        yield Finding(
            location_in_arm(recipe, name, "prior"),
            f"prior '{arm.drawn_from.name}' changes no sample: a joint model takes no conditions, "
            "and no guidance reads them",
        )


def unlearned(recipe: Recipe, name: str, arm: Arm) -> Iterator[Finding]:
    """What a training meets too rarely to learn it."""
    images = arm.train.steps * arm.train.batch
    without, conditioned = arm.train.cond_drop * images, (1 - arm.train.cond_drop) * images
    if arm.annotator is not None and arm.takes_conditions:
        at = location_in_arm(recipe, name, "train")
        setting = f"train.cond_drop {arm.train.cond_drop:g}"
        if (
            any("null" in mode.requires for mode in arm.modes)
            and without < 1
            and not arm.annotator.partial
        ):
            yield Finding(at, f"{setting}: {too_few(without, images)} without a condition")
        if conditioned < 1:
            yield Finding(at, f"{setting}: {too_few(conditioned, images)} with a condition")
    if arm.online is not None and round(arm.online.start * arm.train.steps) >= arm.train.steps:
        yield Finding(
            location_in_arm(recipe, name, "annotator"),
            f"annotator '{arm.online.name}' starts after the last of {arm.train.steps} steps: the "
            "model learns without conditions",
        )
    for objective in arm.objectives:
        count = share(objective, arm.process) * images
        if count < 1:
            low, high = objective.interval or arm.process.sigma_range
            yield Finding(
                location_in_arm(recipe, name, "objectives"),
                f"objective '{objective.name}' takes noise levels from {low:g} to {high:g}: "
                f"{too_few(count, images)} of these",
            )


def untrained_averages(recipe: Recipe) -> Iterator[Finding]:
    """Averages that forget the weights of the beginning too slowly."""
    for name in recipe.arms:
        settings = recipe.arm(name).train
        if (left := untrained(settings)) > UNTRAINED:
            what = "untrained" if settings.start is None else f"those of {settings.start}"
            yield Finding(
                location_of_section(recipe, name, "train"),
                f"without ema_ramp, averaged weights are still {left:.0%} {what} after "
                f"{settings.steps:,} steps: train longer, average over less, or leave ema_ramp on",
            )


def too_few(count: float, images: int) -> str:
    return f"the model will learn about {count:.2g} of its {images:,} images"


def share(objective: Objective, process: Process) -> float:
    """The share of a training's noise levels that are in the objective's interval."""
    if objective.interval is None:
        return 1.0
    uniform = (torch.arange(DRAWS) + 0.5) / DRAWS
    return float(taken(objective, process.sigmas(uniform)).double().mean())


def alike(one: Arm, other: Arm) -> bool:
    """Whether two arms are the same work under two names."""
    parts = (
        "conditioner",
        "annotator",
        "drawn_from",
        *Arm.model_fields.keys() - {"encoder", "annotator", "prior"},
    )
    return all(getattr(one, part) == getattr(other, part) for part in parts)
