"""The answer to what a recipe asks: differences of paired trainings, and what they decide."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from fw.core.recipe.comparisons import Comparison
from fw.core.report.compared import Compared, Decision
from fw.core.report.selection import EXPLORATORY, is_search, selection
from fw.core.report.statistics import LEVEL, difference, holm, mean
from fw.core.report.wording import answers, nothing, rule


def verdict(result: Mapping[str, Any], comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """What `result`, a run.json without it, says in the headline's score."""
    key = result["headline"]
    there = every(result, comparisons, key)
    searched = is_search(result)
    absent = len(comparisons) - len(there)
    compared = there if searched else decided(there, result["better"][key], absent)
    found = answers(compared, key, result) or [nothing(comparisons, key, result)]
    return {
        "key": key,
        "better": result["better"][key],
        "rule": EXPLORATORY if searched else rule(compared, len(comparisons)),
        "sentences": in_order(found, result),
        "comparisons": [asdict(each) for each in compared],
        "planned": [each._asdict() for each in comparisons],
    }


def in_order(answers: Sequence[str], result: Mapping[str, Any]) -> list[str]:
    """The sentences of a verdict, with what a sweep has to say of its best point: first, unless the
    answer is about that point alone."""
    selected = selection(result)
    again = (result.get("sweep") or {}).get("kind") == "again"
    return [*answers, *selected] if again else [*selected, *answers]


def every(result: Mapping[str, Any], comparisons: Sequence[Comparison], key: str) -> list[Compared]:
    """The comparisons whose arms have the score; with the baseline that stands best, where there
    are several."""
    arms = result["arms"]
    scores = {name: arm["metrics"][key] for name, arm in arms.items() if key in arm["metrics"]}
    choose = min if result["better"][key] == "lower" else max
    chances = [name for name in result["baselines"] if name in scores]
    found = []
    for arm, than, role, stated in comparisons:
        if than == result["baseline"] and arm not in chances and not stated:
            than = choose(chances, key=lambda name: scores[name]["mean"], default=than)
        if arm in scores and than in scores:
            found.append(compared(Comparison(arm, than, role), scores[arm], scores[than]))
    return found


def compared(pair: Comparison, one: Mapping[str, Any], other: Mapping[str, Any]) -> Compared:
    """Two scores of run.json, by the trainings that both have."""
    trainings = [
        [a - b for a, b in zip(values, other["trainings"].get(seed, ()), strict=False)]
        for seed, values in one["trainings"].items()  # runs may have different sampling seeds
    ]
    pairs = [differences for differences in trainings if differences]
    left_out = len(one["trainings"].keys() | other["trainings"].keys()) - len(pairs)
    about = pair.arm, pair.than, pair.role, one["mean"], other["mean"]
    if not pairs:  # different trainings failed
        return Compared(*about, (), math.nan, None, None, None, left_out=left_out)
    shown = difference([mean(values) for values in pairs])
    return Compared(
        *about,
        shown.values,
        shown.mean,
        shown.interval,
        shown.p,
        spread(pairs),
        left_out=left_out,
    )


def spread(pairs: Sequence[Sequence[float]]) -> float | None:
    """Root of the mean variance of differences within a training, over its sampling seeds."""
    finite = all(math.isfinite(value) for values in pairs for value in values)
    if not finite or min(map(len, pairs)) < 2:
        return None
    return math.hypot(*map(statistics.stdev, pairs)) / math.sqrt(len(pairs))


def decided(comparisons: Sequence[Compared], better: str, absent: int = 0) -> list[Compared]:
    """With decisions, which share one level; a comparison that nothing can be said of is
    undecided, and counts. So do those that are `absent` because an arm has no score: which arms
    fail is no reason to ask less of the others."""
    ps = [1.0 if each.p is None else each.p for each in comparisons]
    adjusted = holm([*ps, *[1.0] * absent])[: len(ps)]
    return [judge(*pair, better) for pair in zip(comparisons, adjusted, strict=True)]


def judge(one: Compared, adjusted: float, better: str) -> Compared:
    if one.p is None:
        return one
    decision: Decision = "undecided"
    if adjusted < LEVEL:
        decision = "better" if (one.difference < 0) == (better == "lower") else "worse"
    return replace(one, adjusted=adjusted, decision=decision)
