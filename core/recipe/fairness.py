"""Comparisons in a recipe whose arms are not on equal terms, and scores that flatter an arm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

from fw.core.files.finished import FinishedWeights
from fw.core.recipe.arm import Arm
from fw.core.recipe.effect import alike
from fw.core.recipe.finding import Finding, in_yaml
from fw.core.recipe.model import Recipe
from fw.core.settings import Train
from fw.registry import Component
from fw.registry.names import fields_by_key

WITHOUT_EFFECT = (
    *("cond_drop", "accumulate", "compile", "checkpointing"),
    *("snapshots", "averages", "keep"),
)
"""Fields of `train` that arms may differ in: by conditions, by rounding alone, or in what is kept
on the way."""

SAME_IN_ALL_ARMS: tuple[tuple[str, Callable[[Arm], Any]], ...] = (
    *(
        (f"train.{key}", attrgetter(f"train.{field}"))
        for key, field in fields_by_key(Train).items()
        if key not in WITHOUT_EFFECT
    ),
    ("model", attrgetter("model")),
    ("process", attrgetter("process")),
)
"""Samplers, too, but there is more to say about them: see core/recipe/sampling.py."""


def unfair(recipe: Recipe) -> Iterator[Finding]:
    """Comparisons that are not fair; the recipe runs all the same."""
    baseline = recipe.arm(recipe.baseline)
    spaces = {metric.space.name for metric in recipe.metrics}
    for name in recipe.arms:
        arm = recipe.arm(name)
        for what, value in SAME_IN_ALL_ARMS:
            if differ(value(arm), value(baseline)):
                how = difference(value(arm), value(baseline))
                yield Finding(("arms", name), f"{what} differs from the baseline's: {how}")
        if arm.sampled_width != baseline.sampled_width and not averaged_baseline(recipe, arm):
            own, usual = (each.sampled_width or "train.ema" for each in (arm, baseline))
            yield Finding(
                ("arms", name),
                f"ema differs from the baseline's: {own} against {usual}; an arm like the baseline "
                "with the same would set them side by side",
            )
        if arm.conditioner is not None and arm.conditioner.name in spaces:
            yield Finding(
                ("metrics",),
                f"arm {name} is conditioned by encoder '{arm.conditioner.name}' and scored in its "
                "space: such a score can rate bad images better than real ones",
            )
        for objective in arm.objectives:
            if objective.target is not None and objective.target.name in spaces:
                yield Finding(
                    ("metrics",),
                    f"arm {name} learns the features of encoder '{objective.target.name}' "
                    f"({objective.name}) and is scored in its space, which flatters it",
                )
        if arm.conditioner is not None and arm.conditioner.uses_labels:
            for index, probe in enumerate(recipe.probes):
                if probe.of == "encoder" and probe.withholds_labels:
                    reason = (
                        f"{probe.name} withholds labels that encoder '{arm.conditioner.name}' of "
                        f"arm {name} was trained with"
                    )
                    yield Finding(("probes", index), reason)
        if arm.train.warmup >= arm.train.steps:
            yield Finding(
                ("arms", name), f"train.warmup ({arm.train.warmup}) is not shorter than train.steps"
            )
    if baseline.annotator is not None:
        yield Finding(
            ("baseline",),
            "the baseline is conditional; an unconditional one is a model trained without "
            "conditions",
        )
    if recipe.repeats == 2:
        yield Finding(
            ("repeats",), "two trainings decide only what is obvious without any statistics; take 3"
        )
    if recipe.samples.seeds < 3 and recipe.repeats == 1:
        yield Finding(
            ("samples", "seeds"),
            f"{recipe.samples.seeds} sampling seeds give no spread worth the name; take 3",
        )
    for index, metric in enumerate(recipe.metrics):
        if metric.convention is not None and recipe.samples.count < metric.convention:
            yield Finding(
                ("metrics", index),
                f"{metric.name} is defined on {metric.convention:,} samples; with "
                f"{recipe.samples.count} it is biased upwards",
            )


def differ(one: Any, other: Any) -> bool:
    """Whether two values are others; the same weights may lie in two places."""
    if isinstance(one, FinishedWeights) and isinstance(other, FinishedWeights):
        return one.sha256 != other.sha256
    return one != other


def averaged_baseline(recipe: Recipe, arm: Arm) -> bool:
    """Whether there is an arm like the baseline but for its average, which is that of `arm`."""
    wanted = recipe.arm(recipe.baseline).model_copy(update={"ema": None})
    others = (other for other in map(recipe.arm, recipe.arms) if same_average(other, arm))
    return any(alike(other.model_copy(update={"ema": None}), wanted) for other in others)


def same_average(one: Arm, other: Arm) -> bool:
    return one.sampled_width == other.sampled_width


def difference(one: Any, other: Any) -> str:
    """What differs, in words: of components with one name the fields alone."""
    if not isinstance(one, Component) or not isinstance(other, Component):
        return f"{one} against {other}"
    if one.name != other.name:
        return f"{one.name} against {other.name}"
    mine, others = one.model_dump(), other.model_dump()
    keys = [key for key in mine if mine[key] != others[key]]
    return "; ".join(f"{key} {in_yaml(mine[key])} against {in_yaml(others[key])}" for key in keys)
