"""Runs of one recipe from several seeds, read as one run with so many trainings."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from fw.core.recipe.comparisons import Comparison
from fw.core.report.collect import probe_entries, summary
from fw.core.report.verdict import verdict

Run = Mapping[str, Any]
"""What run.json says."""


def trainings(run: Run, score: Mapping[str, Any]) -> dict[str, list[float]]:
    """The score of each sampling seed by training seed, also of a run from before there were
    several."""
    return dict(score.get("trainings") or {str(run.get("seed", 0)): score["values"]})


def compared_by(run: Run) -> list[Comparison]:
    """What the run compares; of one from before it said so, each arm with the baseline."""
    if (planned := (run.get("verdict") or {}).get("planned")) is not None:
        return [Comparison(**each) for each in planned]
    return [
        Comparison(name, run["baseline"], "baseline")
        for name in run["arms"]
        if name != run["baseline"]
    ]


def joined(runs: Sequence[Run]) -> dict[str, Any]:
    """The runs, which are of one recipe, as one: scores by training, and a verdict over all of
    them. A seed that several runs have counts once."""
    first = runs[0]
    arms = {
        name: joined_arm([(run, run["arms"][name]) for run in runs if name in run["arms"]])
        for name in dict.fromkeys(name for run in runs for name in run["arms"])
    }
    seeds = sorted(
        {
            int(seed)
            for arm in arms.values()
            for score in arm["metrics"].values()
            for seed in score["trainings"]
        }
    )
    result = {
        **first,
        "seed": min(seeds, default=first.get("seed", 0)),
        "repeats": max(1, len(seeds)),
        "seeds": seeds,
        "baselines": first.get("baselines") or [first["baseline"]],
        "arms": arms,
    }
    return {**result, "verdict": verdict(result, compared_by(first))}


def joined_arm(entries: Sequence[tuple[Run, Mapping[str, Any]]]) -> dict[str, Any]:
    """One arm of all runs: scores and probes of every training, and the mean of what it costs."""
    _, first = entries[0]
    metrics = {}
    for key in dict.fromkeys(key for _, arm in entries for key in arm["metrics"]):
        having = [(run, arm["metrics"][key]) for run, arm in entries if key in arm["metrics"]]
        by_seed = {
            int(seed): values
            for run, score in having
            for seed, values in trainings(run, score).items()
        }
        metrics[key] = {**having[0][1], **summary(dict(sorted(by_seed.items())))}
    return {
        **first,
        "status": worst([arm["status"] for _, arm in entries]),
        "metrics": metrics,
        **joined_probes(entries),
        "seconds": statistics.fmean(arm["seconds"] for _, arm in entries),
    }


def joined_probes(entries: Sequence[tuple[Run, Mapping[str, Any]]]) -> dict[str, Any]:
    """What probes found in all of their trainings; nothing where there are no probes."""
    found: dict[str, dict[int, float]] = {}
    for run, arm in entries:
        known = arm.get("probe_trainings") or {
            key: {run.get("seed", 0): value} for key, value in arm.get("probes", {}).items()
        }
        for key, values in known.items():
            by_seed = {int(seed): value for seed, value in values.items()}
            found[key] = {**found.get(key, {}), **by_seed}
    by_key = {
        key: {str(seed): values[seed] for seed in sorted(values)} for key, values in found.items()
    }
    return probe_entries(by_key) if by_key else {}


def worst(statuses: Sequence[str]) -> str:
    """That of the arm as a whole: finished where it is so in every run."""
    return next((status for status in statuses if status != "finished"), "finished")
