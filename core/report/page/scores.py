"""The table of all scores, whose columns the page's script can sort by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fw.core.report.basis import basis
from fw.core.report.markdown import PROBES, spread
from fw.core.report.page.marks import Mark
from fw.core.report.page.material import Material
from fw.core.report.tables import rows


@dataclass(frozen=True)
class Row:
    name: str
    mark: Mark | None
    cells: Sequence[str]


@dataclass(frozen=True)
class Scores:
    header: Sequence[str]
    arms: Sequence[Row]
    others: Sequence[Row]
    """What stands below and is not sorted: the floor."""
    spread: str
    """What standard deviations are over."""
    count: int
    probes: str
    chances: Sequence[tuple[str, str]]
    basis: Sequence[str]
    """What each score is of."""


def scores(material: Material) -> Scores:
    result = material.result
    header, *body = rows(result)
    made = [Row(name, material.marks.get(name), cells) for name, *cells in body]
    arms = len(result["arms"])
    samples = result["samples"]
    return Scores(
        header=header,
        arms=made[:arms],
        others=made[arms:],
        spread=spread(result),
        count=samples["count"],
        probes=PROBES if result.get("probes") else "",
        chances=chances(material),
        basis=basis(result),
    )


def chances(material: Material) -> list[tuple[str, str]]:
    """Between what values the scores of new images lie, where that is known."""
    ranges = {
        key: score["by_chance"]
        for arm in material.result["arms"].values()
        for key, score in arm["metrics"].items()
        if "by_chance" in score
    }
    return [(key, f"{low:.3f} to {high:.3f}") for key, (low, high) in ranges.items()]
