"""Whether two records of one recipe say the same, number by number and bit for bit."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fw.core.messages.escaping import visible

MOST_ARMS = 2
"""More arms that share a stage are counted, not named."""

SHORT = 12
"""Hex digits of a digest that people are shown."""

Reasons = Mapping[tuple[str, str], str]
"""Why there is nothing to compare a score with, by arm and key."""


@dataclass(frozen=True)
class Line:
    """One thing that was logged and what it is compared with, for people."""

    arm: str
    key: str
    logged: str
    again: str
    fault: str = ""
    """How they differ, or why that cannot be said; empty where they are equal."""


def scores(
    logged: Mapping[str, Any],
    made: Mapping[str, Any],
    reasons: Reasons,
    stored: Mapping[str, Any] | None = None,
) -> list[Line]:
    """A line for each score that run.json has of an arm, for numbers of real images that differ,
    and for the verdict. `stored` is what the run's store says of itself."""
    made = json.loads(json.dumps(made))  # as it would be read back
    lines = []
    for arm, said in logged["arms"].items():
        for name, entry in said["metrics"].items():
            again = score_in(made, arm, name)
            if again is None or (arm, name) in reasons:
                wrong = reasons.get((arm, name), "today's recipe has no such score")
            elif wrong := difference(entry, again):
                wrong += whose(entry, again, stored and score_in(stored, arm, name))
            lines.append(Line(arm, name, mean(entry), mean(again), wrong))
        real = made["arms"].get(arm, {}).get("real_images")
        if real and (wrong := difference(said["real_images"], real)):
            lines.append(Line(arm, "real_images", "", "", wrong))
    if "verdict" in logged and "verdict" in made and not reasons:
        lines.append(Line("", "verdict", "", "", difference(logged["verdict"], made["verdict"])))
    return lines


def score_in(record: Mapping[str, Any], arm: str, name: str) -> Mapping[str, Any] | None:
    entry: Mapping[str, Any] | None = record["arms"].get(arm, {}).get("metrics", {}).get(name)
    return entry


def mean(entry: Mapping[str, Any] | None) -> str:
    return "" if entry is None else f"{entry['mean']:.6g}"


def whose(logged: Any, again: Any, stored: Any) -> str:
    """Which of two different scores the store has."""
    if stored and not difference(stored, again):
        return "; the store has what was computed"
    return "; the store has it as logged" if stored and not difference(logged, stored) else ""


def key(arm: str, kind: str, logged: str, again: str) -> Line:
    """The key of a stage of an arm, which is made of all that decides its product."""
    changed = (
        "" if logged == again else "another key: fw or what the recipe names has changed since"
    )
    return Line(arm, kind, logged, again, changed)


def bits(arms: Sequence[str], title: str, logged: str, again: str) -> Line:
    """A stage's product, by its digests."""
    who = ", ".join(arms) if len(arms) <= MOST_ARMS else f"{len(arms)} arms"
    return Line(who, title, logged[:SHORT], again[:SHORT], "" if logged == again else "other bits")


def fault(arms: Sequence[str], title: str, reason: str) -> Line:
    """What is wrong with a stored product."""
    return replace(bits(arms, title, "", ""), fault=reason)


def show(lines: Sequence[Line], console: Console) -> None:
    """Print them, and what is wrong with how many."""
    table = Table()
    for column in ("arm", "key", "logged", "again", ""):
        table.add_column(column, justify="right" if column in ("logged", "again") else "left")
    for line in lines:
        cells = (line.arm, line.key, line.logged, line.again, line.fault or "equal")
        table.add_row(*(Text(visible(cell)) for cell in cells))
    console.print(table)


def conclusion(lines: Sequence[Line]) -> str:
    """How many of them are equal, and which are not."""
    wrong = [f"{line.arm} {line.key}".strip() for line in lines if line.fault]
    if not wrong:
        return f"all {len(lines)} are equal, bit for bit"
    return f"{len(wrong)} of {len(lines)} are not as logged: {', '.join(wrong)}"


def difference(logged: Any, again: Any) -> str:
    """How far they are apart, and where most; empty if they are equal. What is new in `again` is
    no difference: an older fw had not logged it."""
    apart = sorted(differences(logged, again), key=lambda each: -each[1])
    if not apart:
        return ""
    place, size = apart[0]
    by = f"differs by {size:.3g}" if math.isfinite(size) else "differs"
    return f"{by} in {place}" if place else by


def differences(logged: Any, again: Any, place: str = "") -> Iterator[tuple[str, float]]:
    """Where they differ, and by how much; infinitely where no number says it."""
    if isinstance(logged, Mapping) and isinstance(again, Mapping):
        for key, value in logged.items():
            yield from differences(value, again.get(key), f"{place}.{key}" if place else key)
    elif isinstance(logged, list) and isinstance(again, list) and len(logged) == len(again):
        for index, (one, other) in enumerate(zip(logged, again, strict=True)):
            yield from differences(one, other, f"{place}[{index}]")
    elif not same(logged, again):
        yield place, distance(logged, again)


def distance(one: Any, other: Any) -> float:
    """Infinite where no number says it."""
    try:
        size = abs(float(one - other))
    except (TypeError, OverflowError):
        return math.inf
    return math.inf if math.isnan(size) else size


def same(one: Any, other: Any) -> bool:
    """Equal; of floats, in all their digits, where a number that is none equals itself."""
    return bool(one == other) or (one != one and other != other)
