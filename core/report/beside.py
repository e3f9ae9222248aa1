"""Runs of several recipes in one table, and what may be said of arms of different runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fw.core.recipe.comparisons import Comparison
from fw.core.report.compared import Compared
from fw.core.report.joined import Run, joined
from fw.core.report.tables import ARROWS, cell, floors, numbers, title_of
from fw.core.report.verdict import compared, decided

RULER = {"n": "samples", "reference": "real images", "space": "space", "metric": "metric"}
"""What has to be equal for two scores to be of one ruler, and its name for people."""


@dataclass(frozen=True)
class Group:
    """Runs of one recipe, as one: their mark in the table, where they were read, and what they
    say."""

    mark: str
    sources: tuple[str, ...]
    run: Run

    @property
    def label(self) -> str:
        """`[1] self_guidance, seeds 0 to 2`"""
        return f"{self.mark} {title_of(self.run)}"


@dataclass(frozen=True)
class Difference:
    """An arm of one group beside the arm of that name in the first one, in one score."""

    group: str
    key: str
    compared: Compared


def groups(runs: Sequence[tuple[str, Run]]) -> list[Group]:
    """The runs, each with the place that it was read from, put together where their recipes are
    equal but for the seeds, and measured alike: an fw between them may have changed a metric."""
    by_recipe: dict[str, list[tuple[str, Run]]] = {}
    for place, run in runs:
        recipe = run.get("recipe_key")
        same = place if recipe is None else json.dumps([recipe, run.get("rulers")], sort_keys=True)
        by_recipe.setdefault(same, []).append((place, run))
    return [
        Group(f"[{place}]", tuple(name for name, _ in same), joined([run for _, run in same]))
        for place, same in enumerate(by_recipe.values(), 1)
    ]


def keys(found: Iterable[Group]) -> dict[str, str]:
    """Every score of any group, with `lower` or `higher`."""
    return {key: better for group in found for key, better in group.run["better"].items()}


def unlike(key: str, found: Sequence[Group]) -> list[str]:
    """Why the groups' scores of a key are not of one ruler, or why that is not known; nothing
    where they are."""
    having = [group for group in found if key in group.run["better"]]
    known = [(group.mark, group.run.get("rulers", {}).get(key)) for group in having]
    rulers = [(mark, ruler) for mark, ruler in known if ruler is not None]
    silent = [mark for mark, ruler in known if ruler is None]
    if silent and len(having) > 1:
        return [
            f"{key}: what it is measured by is not known of {', '.join(silent)}, which an earlier "
            "fw made; run its recipe again, which does nothing twice"
        ]
    return [
        f"{key}: {name} differ: " + "; ".join(f"{ruler[part]} in {mark}" for mark, ruler in rulers)
        for part, name in RULER.items()
        if len({ruler[part] for _, ruler in rulers}) > 1
    ]


def differences(found: Sequence[Group], key: str) -> list[Difference]:
    """What arms of one name differ by from the first group's, where both were trained from the
    same seeds and are scored by one ruler. These decisions, too, share one level."""
    first, *others = found
    alike = [group for group in others if not unlike(key, [first, group])]
    pairs = [
        (group.mark, compared(Comparison(name, name, "baseline"), arm["metrics"][key], score))
        for group in alike
        for name, arm in group.run["arms"].items()
        if (score := score_of(first, name, key)) and paired(arm["metrics"].get(key), score)
    ]
    judged = decided([each for _, each in pairs], first.run["better"][key])
    return [Difference(mark, key, each) for (mark, _), each in zip(pairs, judged, strict=True)]


def score_of(group: Group, arm: str, key: str) -> Mapping[str, Any] | None:
    metrics: Mapping[str, Any] = group.run["arms"].get(arm, {}).get("metrics", {})
    return metrics.get(key)


def paired(one: Mapping[str, Any] | None, other: Mapping[str, Any]) -> bool:
    """Whether two scores have trainings from one seed, and are not of the very same ones."""
    if one is None or one["trainings"] == other["trainings"]:
        return False
    return bool(one["trainings"].keys() & other["trainings"].keys())


def rows(found: Sequence[Group]) -> Iterator[list[str]]:
    """All arms of all groups: a header, then a row for each. What several groups share is one row
    with all their marks; what real images score is the last row of each group, or of all."""
    every = keys(found)
    marked = {key: "*" if unlike(key, found) else "" for key in every}
    yield ["arm", *(f"{key}{marked[key]} {ARROWS[every[key]]}" for key in every), "NFE"]
    shared: dict[tuple[str, ...], list[str]] = {}
    for group in found:
        for row in arm_rows(group, every):
            shared.setdefault(row, []).append(group.mark)
    for (name, *cells), marks in shared.items():
        yield [f"{name} {''.join(marks)}", *cells]


def arm_rows(group: Group, every: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """A group's arms and its floor, without its mark."""
    arms = group.run["arms"]
    for name, arm in arms.items():
        yield name, *(cell(arm, key) for key in every), str(arm["nfe"])
    yield "real held-out", *numbers(floors(arms), every), ""
