"""What a run concludes, in sentences and in numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from fw.core.report.compared import Compared
from fw.core.report.tables import verdict


@dataclass(frozen=True)
class Verdict:
    """Printed, it is the report's sentences."""

    score: str
    """The score that it is about, such as `fd_classifier`."""
    better: Literal["lower", "higher"]
    rule: str
    """How it was decided, in words."""
    sentences: tuple[str, ...]
    comparisons: tuple[Compared, ...]
    """Each pair of arms: means, difference, interval, p and decision."""

    def __str__(self) -> str:
        return "\n".join(self.sentences)

    __repr__ = __str__


def verdict_of(result: Mapping[str, Any]) -> Verdict:
    """What a run.json with results says; without comparisons, if it is from before there were
    any."""
    known = result.get("verdict") or {}
    key = known.get("key", result["headline"])
    return Verdict(
        score=key,
        better=known.get("better", result["better"][key]),
        rule=known.get("rule", ""),
        sentences=tuple(verdict(result)),
        comparisons=tuple(map(comparison, known.get("comparisons", ()))),
    )


def comparison(entry: Mapping[str, Any]) -> Compared:
    known = {each.name: entry[each.name] for each in fields(Compared) if each.name in entry}
    before: dict[str, Any] = {"mean": math.nan, "mean_of_than": math.nan}  # not in older ones
    values, interval = tuple(entry["values"]), entry["interval"]
    pair = None if interval is None else tuple(interval)
    return Compared(**{**before, **known, "values": values, "interval": pair})
