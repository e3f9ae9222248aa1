"""One measurement: what, beside what, the result and its goal; and the table of many."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bench.speed.interleaved import Paired, Ratio
from bench.table import markdown


class Goal(NamedTuple):
    """A bound that the result should not exceed, or with `least` not fall short of."""

    bound: float
    least: bool = False

    def met(self, value: float) -> bool:
        return value >= self.bound if self.least else value <= self.bound

    def __str__(self) -> str:
        return f"{'at least' if self.least else 'at most'} {self.bound:g}"


@dataclass(frozen=True)
class Row:
    what: str
    against: str
    """What one would take in its place."""
    value: float
    unit: str
    goal: Goal | None = None
    quartiles: tuple[float, float] | None = None
    noise: float | None = None
    """By which factor ours differs from itself (interleaved.Paired)."""
    counts: Mapping[str, float] = field(default_factory=dict)
    """What else was measured or counted, by name."""

    @property
    def met(self) -> bool | None:
        """Whether the goal was reached, to the digits that the table shows; None without a goal."""
        return None if self.goal is None else self.goal.met(float(f"{self.value:.4g}"))

    def summary(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**dataclasses.asdict(self), "met": self.met}

    @staticmethod
    def read(summary: Mapping[str, Any]) -> Row:
        """What `summary` wrote."""
        fields = {name: value for name, value in summary.items() if name != "met"}
        goal, quartiles = fields["goal"], fields["quartiles"]
        fields["goal"] = goal and Goal(*goal)
        fields["quartiles"] = quartiles and tuple(quartiles)
        return Row(**fields)


def cost(what: str, against: str, pairs: Paired, goal: float | None = None, **counts: float) -> Row:
    """CPU seconds of ours over theirs, at most `goal`."""
    bound = None if goal is None else Goal(goal)
    return of_ratio(what, against, pairs, pairs.cost, "x the CPU time", bound, counts)


def speed(
    what: str, against: str, pairs: Paired, goal: float | None = None, **counts: float
) -> Row:
    """CPU seconds of theirs over ours, at least `goal`."""
    bound = None if goal is None else Goal(goal, least=True)
    return of_ratio(what, against, pairs, pairs.speed, "x as fast", bound, counts)


def of_ratio(
    what: str,
    against: str,
    pairs: Paired,
    ratio: Ratio,
    unit: str,
    goal: Goal | None,
    counts: Mapping[str, float],
) -> Row:
    ours, theirs = (Ratio.of(turns).median for turns in (pairs.ours, pairs.theirs))
    seconds = {"ours, CPU s": ours, "theirs, CPU s": theirs, "pairs": len(pairs.ours)}
    named = {name.replace("_", " "): count for name, count in counts.items()}
    quartiles = (ratio.low, ratio.high)
    return Row(
        what, against, ratio.median, unit, goal, quartiles, pairs.noise, {**seconds, **named}
    )


HEADS = ("what", "against", "result", "goal", "reached", "what else was counted")


def table(groups: Mapping[str, Iterable[Row]]) -> str:
    """All rows as Markdown, group by group."""
    lines = [cells(row) for rows in groups.values() for row in rows]
    return markdown(HEADS, lines)


def cells(row: Row) -> list[str]:
    result = f"{number(row.value)} {row.unit}"
    if row.quartiles is not None:
        low, high = map(number, row.quartiles)
        itself = "" if row.noise is None else f"; itself {number(row.noise)}"
        result += f" ({low} to {high}{itself})"
    goal = "" if row.goal is None else str(row.goal)
    reached = {None: "", True: "yes", False: "**no**"}[row.met]
    counts = "; ".join(f"{name} {number(count)}" for name, count in row.counts.items())
    return [row.what, row.against, result, goal, reached, counts]


def number(value: float) -> str:
    """Four digits, and thousands with commas."""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 0.1 else f"{value:.4g}"
