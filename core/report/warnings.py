"""What results warn of: what stages noticed, and arms that came out the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fw.core.plan.graph import Plan
from fw.core.store.store import Store


def stage_warnings(plan: Plan, store: Store) -> list[str]:
    """What finished stages had to warn of, in the order of the plan."""
    return [
        f"{plan.stages[stage].title}: {text}"
        for stage, manifest in store.finished(plan.stages).items()
        for text in manifest.get("warnings", ())
    ]


def indistinct(result: Mapping[str, Any]) -> list[str]:
    """Arms that were sampled in different ways and came out the same, in every score of every
    sampling seed."""
    finished = {name: arm for name, arm in result["arms"].items() if arm["status"] == "finished"}
    arms = {name: arm for name, arm in finished.items() if arm["metrics"]}
    groups: list[list[str]] = []
    for name in arms:
        for group in groups:
            if same_scores(arms[group[0]], arms[name]):
                group.append(name)
                break
        else:
            groups.append([name])
    return [
        f"arms {' and '.join(group)} have exactly equal scores in all sampling seeds "
        f"({equal_scores(arms[group[0]])}): the model ignores its condition, or guidance never "
        "acted"
        for group in groups
        if len({arms[name]["sample_key"] for name in group}) > 1
    ]


def same_scores(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two arms agree in whatever both are scored by, sampling seed by sampling seed."""
    scores, others = one["metrics"], other["metrics"]
    common = scores.keys() & others.keys()
    return bool(common) and all(scores[key]["values"] == others[key]["values"] for key in common)


def equal_scores(arm: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {score['mean']:.3f}" for key, score in arm["metrics"].items())
