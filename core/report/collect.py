"""What run.json says of a run: always collected anew from the store."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from fw.core.plan.graph import ArmPlan, Plan
from fw.core.recipe.comparisons import comparisons, roles
from fw.core.recipe.effect import acting
from fw.core.recipe.model import Recipe
from fw.core.recipe.sampling import arm_spread, baselines, in_words
from fw.core.report import provenance
from fw.core.report.environment import environment, versions
from fw.core.report.snapshots import snapshot_entries
from fw.core.report.statistics import mean
from fw.core.report.verdict import verdict
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
    by_name = roles(recipe)
    result = {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "repeats": recipe.repeats,
        "baseline": recipe.baseline,
        "baselines": baselines(recipe),
        "headline": headline(recipe),
        "samples": recipe.samples.model_dump(),
        "better": directions(recipe),
        "in_figures": [key for metric in recipe.metrics for key in metric.in_figures],
        "rulers": rulers(plan),
        **({"sweep": recipe.sweep.model_dump(mode="json")} if recipe.sweep else {}),
        **probed_keys(recipe, plan),
        "arms": {name: {"role": by_name[name], **entry(arm)} for name, arm in plan.arms.items()},
        "evaluators": evaluators(plan, store, finished),
        "plugins": made_by,
        "versions": versions(),
        "environment": environment(finished.values()),
    }
    return {**result, "verdict": verdict(result, comparisons(recipe))}


def headline(recipe: Recipe) -> str:
    """The key that the comparison is about: what a sweep ranks by, else the first one of the first
    metric."""
    ranked = recipe.sweep.metric if recipe.sweep is not None else None
    return ranked or next(iter(recipe.metrics[0].keys))


def directions(recipe: Recipe) -> dict[str, str]:
    """Which scores are better, `lower` or `higher`, by key of the metrics."""
    return {key: better for metric in recipe.metrics for key, better in metric.keys.items()}


def rulers(plan: Plan) -> dict[str, dict[str, Any]]:
    """What each score is measured by: two are comparable where all of it is equal."""
    evaluations = [stage for stage in plan.stages.values() if isinstance(stage, Evaluate)]
    return {key: stage.ruler for stage in evaluations for key in stage.metric.keys}


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
    own = {stage for training in arm.trainings.values() for stage in training.stages()}
    done = own & finished.keys()
    broken = [stage for stage in plan.stages if stage in plan.needed(arm) and stage in failed]
    entry: dict[str, Any] = {
        "status": "finished" if done == own else "failed" if broken else "pending",
        **scores(arm, store, finished),
        "nfe": arm.nfe,
        "sampler": in_words(arm.arm.sampler),
        "seconds": round(sum(finished[stage]["seconds"] for stage in done) / recipe.repeats, 1),
        "train_key": arm.train,
        "sample_key": arm.sample,
        "label_free": recipe.label_free(arm.arm)._asdict(),
    }
    if (exact := arm_spread(recipe, arm.arm)) is not None:
        entry["spread"] = asdict(exact)
    if arm.sample in finished:
        entry["nfe"] = store.read(arm.sample, "info.json")["nfe"]
    for section, qualities in sections(arm, plan, store, finished).items():
        entry[section] = averaged(qualities)
    if probed := probes(arm, plan, store, finished):
        entry |= probe_entries(probed)
    if arm.arm.modes:
        entry["guidance"] = [
            {
                "name": mode.name,
                "acts": acts,
                "calls": calls,
            }
            for mode, acts, calls in acting(arm.arm)
        ]
    if arm.snapshots:
        entry["snapshots"] = snapshot_entries(arm, store, finished)
    if broken:
        entry["error"] = failed[broken[0]]
    return entry


def scores(arm: ArmPlan, store: Store, finished: Manifests) -> dict[str, Any]:
    """What metrics say of an arm's trainings, and how many real images they compared with."""
    by_key: dict[str, dict[int, list[float]]] = {}
    beside: dict[str, dict[str, Any]] = {}
    real: dict[str, int] = {}
    for seed, training in arm.trainings.items():
        for stage in training.evaluate:
            if stage not in finished:
                continue
            evaluated = store.read(stage, "scores.json")
            real = evaluated["real"]
            for key, values in evaluated["scores"].items():
                by_key.setdefault(key, {})[seed] = values
                beside.setdefault(key, {"floor": evaluated["floor"].get(key)})
            for key, limits in evaluated.get("by_chance", {}).items():  # not in older ones
                beside[key]["by_chance"] = limits
            if "basis" in evaluated:  # not in older ones
                for key in evaluated["scores"]:
                    beside[key]["basis"] = evaluated["basis"]
    return {
        "metrics": {key: {**summary(values), **beside[key]} for key, values in by_key.items()},
        "real_images": real,
    }


def summary(trainings: Mapping[int, Sequence[float]]) -> dict[str, Any]:
    """Mean and standard deviation (ddof 1), infinite where a score is: of several trainings over
    these, each the mean of its sampling seeds; of one over its sampling seeds.

    `trainings` has the score of each sampling seed, by training seed.
    """
    first = next(iter(trainings.values()))
    values = list(first) if len(trainings) == 1 else [mean(each) for each in trainings.values()]
    if not all(map(math.isfinite, values)):
        std = math.inf
    else:
        std = statistics.stdev(values) if len(values) > 1 else 0.0
    by_seed = {str(seed): list(each) for seed, each in trainings.items()}
    return {"mean": mean(values), "std": std, "values": values, "trainings": by_seed}


def sections(
    arm: ArmPlan, plan: Plan, store: Store, finished: Manifests
) -> dict[str, list[Mapping[str, float]]]:
    """What an arm's trainings have for the sections of the report, by section."""
    found: dict[str, list[Mapping[str, float]]] = {}
    for training in arm.trainings.values():
        for stage in training.stages():
            section = plan.stages[stage].section
            if section is not None and stage in finished:
                found.setdefault(section.name, []).append(store.read(stage, "quality.json"))
    return found


def probes(
    arm: ArmPlan, plan: Plan, store: Store, finished: Manifests
) -> dict[str, dict[str, float]]:
    """The scores that are one number for each training, by its seed."""
    found: dict[str, dict[str, float]] = {}
    for seed, training in arm.trainings.items():
        for stage in training.stages():
            if stage in finished and plan.stages[stage].columns:
                for key, value in store.read(stage, "scores.json")["scores"].items():
                    found.setdefault(key, {})[str(seed)] = value
    return found


def probe_entries(trainings: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """An arm's entries on what probes found: means, and by key the score of each training."""
    means = {key: mean(list(values.values())) for key, values in trainings.items()}
    return {"probes": means, "probe_trainings": trainings}


def averaged(entries: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each score over those that have it."""
    keys = dict.fromkeys(key for each in entries for key in each)
    return {key: mean([each[key] for each in entries if key in each]) for key in keys}


def evaluators(plan: Plan, store: Store, finished: Manifests) -> dict[str, Any]:
    """How good the feature spaces are in which arms are scored, by encoder."""
    evaluations = (stage for stage in plan.stages.values() if isinstance(stage, Evaluate))
    spaces = {stage.space.id: stage.space.encoder.name for stage in evaluations}
    return {
        space: {"encoder": spaces[space], "quality": store.read(space, "quality.json")}
        for space in sorted(spaces.keys() & finished.keys())
    }
