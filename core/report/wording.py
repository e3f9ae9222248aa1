"""A verdict in words: the answer first, then what is to be known beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fw.core.recipe.comparisons import Comparison
from fw.core.report.compared import Compared, Decision
from fw.core.report.statistics import LEVEL

ANSWER: Mapping[Decision, str] = {
    "better": "Yes",
    "worse": "No, it is worse",
    "undecided": "Undecided",
}

BESIDE = {
    "control": "the control ",
    "ablation": "the ablation ",
    "reference": "the reference ",
    "baseline": "",
}


def rule(comparisons: Sequence[Compared], count: int) -> str:
    """How decisions are made, `count` in all, and what the numbers beside differences are."""
    trainings = sorted({each.trainings for each in comparisons if each.trainings})
    most = trainings[-1] if trainings else 0
    if most < 2 and any(each.left_out for each in comparisons):
        return "No arms have two trainings from the same seeds, and fewer decide nothing."
    if most < 2:
        return (
            "One training of each arm, which decides nothing: what stands beside a difference is "
            "its standard deviation over sampling seeds of the same two networks, and other "
            "trainings differ by more. `repeats: 3` trains every arm three times."
        )
    shared = f"{count} decisions share" if count > 1 else "the decision has"
    freedom = (
        f"{most} trainings, Student's t with {most - 1} degrees of freedom"
        if len(trainings) == 1
        else f"{trainings[0]} to {most} trainings, Student's t with one degree of freedom less"
    )
    return (
        f"Paired differences of {freedom}; {shared} the level {LEVEL:g}"
        f"{' by Holm' if count > 1 else ''}; an interval covers its own difference in 95 of 100 "
        "cases."
    )


def answers(comparisons: Sequence[Compared], key: str, result: Mapping[str, Any]) -> list[str]:
    """The sentences of the verdict on a score; the first answers the question. None where the arms
    that it is about are not compared."""
    main = [each for each in comparisons if each.role == "baseline"]
    if not main:
        return []
    about = answer(main[0], key) if len(main) == 1 else groups(main, key)
    beside = [aside(each, main[0].arm) for each in comparisons if each.role != "baseline"]
    choose = min if result["better"][key] == "lower" else max
    best = choose(main, key=lambda each: each.mean)
    differ = samplers(result["arms"][best.arm], result["arms"][best.than])
    return [*about, *beside, *differ]


def nothing(planned: Sequence[Comparison], key: str, result: Mapping[str, Any]) -> str:
    """Why the arms that the question is about are not compared."""
    arms = result["arms"]
    main = [each for each in planned if each.role == "baseline"]
    if not main:
        only = "the others are controls or references" if len(arms) > 1 else "it is the only arm"
        return f"{key}: nothing is compared with {result['baseline']}, since {only}."
    names = dict.fromkeys(name for each in main for name in (each.than, each.arm))
    never = [
        name
        for name in names
        if arms.get(name, {}).get("status") == "finished" and key not in arms[name]["metrics"]
    ]
    if never:
        return (
            f"{key}: {', '.join(never)} cannot have this score, so nothing is compared; the "
            "verdict is on the first of `metrics`."
        )
    return f"{key}: not enough finished arms to compare."


def answer(one: Compared, key: str) -> list[str]:
    """Of one arm: yes, no or undecided."""
    decision = ANSWER[one.decision] + (", one training" if one.trainings == 1 else "")
    scores = f"{key} {number(one.mean)} against {number(one.mean_of_than)}"
    return [f"Is {one.arm} better than {one.than}? {decision}: {scores}, {change(one)}."]


def groups(main: Sequence[Compared], key: str) -> list[str]:
    """Of several arms: a sentence for each decision, better ones first."""
    than = f"{main[0].than}, {key} {number(main[0].mean_of_than)}"
    found = []
    for decision, words in (
        ("better", f"Better than {than}"),
        ("worse", f"Worse than {than}"),
        ("undecided", f"Undecided against {than}"),
    ):
        those = [each for each in main if each.decision == decision]
        once = ", one training" if any(each.trainings == 1 for each in those) else ""
        if those:
            listed = "; ".join(f"{each.arm} {number(each.mean)}, {change(each)}" for each in those)
            found.append(f"{words}{once}: {listed}.")
    return found


def aside(one: Compared, arm: str) -> str:
    """An arm beside the answer; the question's own arm is not named again."""
    if one.arm != arm:
        return f"Beside it, {BESIDE[one.role]}{one.arm} against {one.than}: {decided(one)}."
    return f"Against {BESIDE[one.role]}{one.than}: {decided(one)}."


def decided(one: Compared) -> str:
    return f"{one.decision}, {number(one.mean)} against {number(one.mean_of_than)}, {change(one)}"


def change(one: Compared) -> str:
    """The difference with its interval, or of one training with its spread."""
    if not one.trainings:
        return "no training in common"
    if math.isnan(one.difference):  # of infinite scores
        return "no difference that is a number"
    text = f"{one.difference:+.3g}"
    if one.interval is not None:
        low, high = one.interval
        text = f"{text} (95 %: {low:+.3g} to {high:+.3g})"
    elif one.trainings == 1 and one.spread is not None:
        text = f"{text} ± {one.spread:.2g} over sampling seeds"
    if one.left_out:
        paired = "training" if one.trainings == 1 else f"{one.trainings} trainings"
        text = f"{text} over the {paired} that both have"
    return text


def number(value: float) -> str:
    return f"{value:.4g}"


def samplers(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What to mind where two arms have different samplers."""
    how, otherwise = one.get("sampler"), other.get("sampler")
    if how == otherwise:
        return []
    compared = f"{how}, NFE {one['nfe']}, against {otherwise}, NFE {other['nfe']}"
    return [f"Their samplers differ: {compared}."]
