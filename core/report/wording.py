"""A verdict in words: the answer first, then what is to be known beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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


def rule(comparisons: Sequence[Compared]) -> str:
    """How decisions are made, and what the numbers beside differences are."""
    trainings = max((each.trainings for each in comparisons), default=0)
    if trainings < 2:
        return (
            "One training of each arm, which decides nothing: what stands beside a difference is "
            "its standard deviation over sampling seeds of the same two networks, and other "
            "trainings differ by more. `repeats: 3` trains every arm three times."
        )
    count = len(comparisons)
    shared = f"{count} decisions share" if count > 1 else "the decision has"
    return (
        f"Paired differences of {trainings} trainings, Student's t with {trainings - 1} degrees "
        f"of freedom; {shared} the level {LEVEL:g}{' by Holm' if count > 1 else ''}; an interval "
        "covers its own difference in 95 of 100 cases."
    )


def answers(comparisons: Sequence[Compared], key: str, result: Mapping[str, Any]) -> list[str]:
    """The sentences of the verdict on a score; the first answers the question."""
    main = [each for each in comparisons if each.role == "baseline"]
    if not main:
        return [f"{key}: not enough finished arms to compare."]
    about = answer(main[0], key) if len(main) == 1 else groups(main, key)
    beside = [aside(each, main[0].arm) for each in comparisons if each.role != "baseline"]
    choose = min if result["better"][key] == "lower" else max
    best = choose(main, key=lambda each: each.mean)
    differ = samplers(result["arms"][best.arm], result["arms"][best.than])
    return [*about, *beside, *differ]


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
    text = f"{one.difference:+.3g}"
    if one.interval is not None:
        low, high = one.interval
        return f"{text} (95 %: {low:+.3g} to {high:+.3g})"
    if one.trainings == 1 and one.spread is not None:
        return f"{text} ± {one.spread:.2g} over sampling seeds"
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
