"""Every score of a run by itself: of each arm, training seed and sampling seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from fw.core.report.joined import trainings


class Scored(NamedTuple):
    """One number that run.json has. A probe's has no sampling seed."""

    arm: str
    role: str
    score: str
    better: str
    seed: int
    sampling_seed: int | None
    value: float


def by_metrics(run: Mapping[str, Any]) -> Iterator[Scored]:
    """What the metrics say, arm by arm."""
    for name, arm in run["arms"].items():
        for key, score in arm["metrics"].items():
            about = name, arm.get("role", ""), key, run["better"][key]
            for seed, values in trainings(run, score).items():
                for sampling_seed, value in enumerate(values):
                    yield Scored(*about, int(seed), sampling_seed, value)


def by_probes(run: Mapping[str, Any]) -> Iterator[Scored]:
    """What the probes say, and other stages whose scores are one number for each training."""
    for name, arm in run["arms"].items():
        for key, value in arm.get("probes", {}).items():
            about = name, arm.get("role", ""), key, run["probes"][key]
            known = arm.get("probe_trainings", {}).get(key) or {run.get("seed", 0): value}
            for seed, each in known.items():
                yield Scored(*about, int(seed), None, each)
