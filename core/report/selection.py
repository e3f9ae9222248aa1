"""What is to be said of the best of a sweep's points: it was chosen by the very scores that it is
named with, so they flatter it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

WORDS = {"lower": "lowest", "higher": "highest"}

EXPLORATORY = (
    "A search chose its points by their scores on these seeds, so nothing is decided here: the "
    "intervals are not those of arms that were fixed before."
)
"""The rule of a search's verdict."""


def is_search(result: Mapping[str, Any]) -> bool:
    """Whether the arms were chosen one after the other by what others had scored, in trainings that
    are in this result."""
    sweep = result.get("sweep") or {}
    return sweep.get("kind") == "search" and chosen_here(result)


def chosen_here(result: Mapping[str, Any]) -> bool:
    """Whether trainings that points were chosen by are among those of the result."""
    first, repeats = result["seed"], result.get("repeats", 1)
    own = result.get("seeds") or range(first, first + repeats)
    chosen_on = result["sweep"].get("chosen_on")
    return not chosen_on or not set(chosen_on).isdisjoint(own)


def best_point(result: Mapping[str, Any]) -> str | None:
    """The point with the best mean in the headline's score; None where no point has a score."""
    key = result["headline"]
    scores = {
        name: mean
        for name in result["sweep"]["points"]
        if (mean := mean_of(result, name, key)) is not None
    }
    choose = min if result["better"][key] == "lower" else max
    return choose(scores, key=lambda name: scores[name], default=None)


def selection(result: Mapping[str, Any]) -> list[str]:
    """Which point of a sweep is the best, and how that is to be read; nothing of other runs."""
    sweep, key = result.get("sweep"), result["headline"]
    if not sweep:
        return []
    if sweep["kind"] == "again":
        return [chosen_before(result)]
    if (best := best_point(result)) is None:
        return []
    score = f"{best} is the best, {key} {mean_of(result, best, key):.4g}"
    again = "fresh seeds say what it is worth: `fw sweep` with `--again 3`"
    if not is_search(result):
        return [
            f"Of {len(sweep['points'])} points {score}; it was chosen among them by these very "
            f"samples, so its score is optimistic, and {again}."
        ]
    failed = f", {sweep['failed']} of which have no score" if sweep.get("failed") else ""
    on = seeds_in_words(sweep["chosen_on"]) if sweep.get("chosen_on") else "these seeds"
    return [
        f"Exploratory: of {sweep['trials']} trials in search of the "
        f"{WORDS[result['better'][key]]} {key}{failed}, {score}; it was chosen by its score on "
        f"{on}, so that score is optimistic, and the result is the score on fresh seeds, in the "
        f"run {result['recipe']}_again."
    ]


def chosen_before(result: Mapping[str, Any]) -> str:
    """Where an arm that is scored again comes from."""
    sweep, key = result["sweep"], result["headline"]
    [arm] = sweep["points"]
    by = f"{sweep['trials']} trials" if sweep.get("trials") else "a grid"
    at = sweep.get("chosen_at")
    scored = "" if at is None else f", where its {key} was {at:.4g}"
    on = f" on {seeds_in_words(sweep['chosen_on'])}" if sweep.get("chosen_on") else ""
    there = (
        "some of these trainings were there, so its score is optimistic"
        if chosen_here(result)
        else "none of these trainings and samples was there"
    )
    return f"{arm} was chosen by {by}{on}{scored}; {there}."


def seeds_in_words(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"


def mean_of(result: Mapping[str, Any], arm: str, key: str) -> float | None:
    """An arm's score, if it is a number that can be compared."""
    return comparable(result["arms"][arm]["metrics"].get(key, {}).get("mean", math.nan))


def comparable(score: float) -> float | None:
    """A score that has a rank; None of infinite ones and of what is no number."""
    return score if math.isfinite(score) else None
