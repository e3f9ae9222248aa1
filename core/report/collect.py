"""What run.json says of a run: always collected anew from the store."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from fw.core.plan.graph import ArmPlan, Plan
from fw.core.recipe.effect import acting
from fw.core.recipe.model import Recipe
from fw.core.recipe.sampling import arm_spread, baselines, in_words
from fw.core.report import provenance
from fw.core.report.environment import environment, versions
from fw.core.stages.evaluate import Evaluate
from fw.core.store.store import Store

Manifests = Mapping[str, Mapping[str, Any]]
"""The manifests of the finished stages of a plan."""


def collect(
    recipe: Recipe, plan: Plan, made_by: provenance.Record, store: Store, failed: Mapping[str, str]
) -> dict[str, Any]:
    """Everything that run.json says, from the finished stages in the store."""
    finished = store.finished(plan.stages)
    entry = partial(collect_arm, recipe, plan, store, finished, failed)
    return {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "baseline": recipe.baseline,
        "baselines": baselines(recipe),
        "headline": headline(recipe),
        "samples": recipe.samples.model_dump(),
        "better": {key: better for metric in recipe.metrics for key, better in metric.keys.items()},
        **probed_keys(recipe, plan),
        "arms": {name: entry(arm) for name, arm in plan.arms.items()},
        "evaluators": evaluators(plan, store, finished),
        "plugins": made_by,
        "versions": versions(),
        "environment": environment(finished.values()),
    }


def headline(recipe: Recipe) -> str:
    """The key that the comparison is about: the first one of the first metric."""
    return next(iter(recipe.metrics[0].keys))


def probed_keys(recipe: Recipe, plan: Plan) -> dict[str, Any]:
    """The keys that probes may report, and other stages whose scores are one number each."""
    judges = [
        *(probe.keys for probe in recipe.probes),
        *(stage.columns for stage in plan.stages.values()),
    ]
    keys = {key: better for columns in judges for key, better in columns.items()}
    return {"probes": keys} if keys else {}


def collect_arm(
    recipe: Recipe,
    plan: Plan,
    store: Store,
    finished: Manifests,
    failed: Mapping[str, str],
    arm: ArmPlan,
) -> dict[str, Any]:
    """One arm's entry; scores appear as soon as their stages are finished."""
    own = arm.stages()
    done = [stage for stage in own if stage in finished]
    broken = [stage for stage in plan.needed(arm) if stage in failed]
    metrics: dict[str, Any] = {}
    real: dict[str, int] = {}
    for stage in arm.evaluate:
        if stage in finished:
            evaluated = store.read(stage, "scores.json")
            scores, floors = evaluated["scores"], evaluated["floor"]
            metrics |= {key: summary(values, floors.get(key)) for key, values in scores.items()}
            for key, limits in evaluated.get("by_chance", {}).items():  # not in older ones
                metrics[key]["by_chance"] = limits
            if "basis" in evaluated:  # not in older ones
                for key in scores:
                    metrics[key]["basis"] = evaluated["basis"]
            real = evaluated["real"]
    entry: dict[str, Any] = {
        "status": "finished" if len(done) == len(own) else "failed" if broken else "pending",
        "metrics": metrics,
        "real_images": real,
        "nfe": arm.nfe,
        "sampler": in_words(arm.arm.sampler),
        "seconds": round(sum(finished[stage]["seconds"] for stage in done), 1),
        "train_key": arm.train,
        "sample_key": arm.sample,
        "label_free": recipe.label_free(arm.arm)._asdict(),
    }
    if (exact := arm_spread(recipe, arm.arm)) is not None:
        entry["spread"] = asdict(exact)
    if arm.sample in finished:
        entry["nfe"] = store.read(arm.sample, "info.json")["nfe"]
    for stage in done:
        if (section := plan.stages[stage].section) is not None:
            entry[section.name] = store.read(stage, "quality.json")
    probed = [stage for stage in done if plan.stages[stage].columns]
    if probed:
        each = (store.read(stage, "scores.json")["scores"] for stage in probed)
        entry["probes"] = {key: value for scores in each for key, value in scores.items()}
    if arm.arm.modes:
        entry["guidance"] = [
            {
                "name": mode.name,
                "acts": acts,
                "calls": calls,
            }
            for mode, acts, calls in acting(arm.arm)
        ]
    if broken:
        entry["error"] = failed[broken[0]]
    return entry


def summary(values: Sequence[float], floor: float | None) -> dict[str, Any]:
    """Mean and standard deviation (ddof 1) over the sampling seeds, infinite where a score is; no
    floor is None."""
    if not all(map(math.isfinite, values)):
        return {"mean": sum(values), "std": math.inf, "values": list(values), "floor": floor}
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    try:
        mean = statistics.fmean(values)
    except OverflowError:  # their sum is no float, and their mean is
        mean = statistics.mean(values)
    return {"mean": mean, "std": std, "values": list(values), "floor": floor}


def evaluators(plan: Plan, store: Store, finished: Manifests) -> dict[str, Any]:
    """How good the feature spaces are in which arms are scored, by encoder."""
    evaluations = (stage for stage in plan.stages.values() if isinstance(stage, Evaluate))
    spaces = {stage.space.id: stage.space.encoder.name for stage in evaluations}
    return {
        space: {"encoder": spaces[space], "quality": store.read(space, "quality.json")}
        for space in sorted(spaces.keys() & finished.keys())
    }
