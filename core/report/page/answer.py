"""The first screen: what was asked, what the answer is, and the differences that it rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fw.core.report.page.marks import Mark
from fw.core.report.page.material import Material
from fw.core.report.tables import verdict

MINUS = "\u2212"

SIGNS = {"better": "▲", "worse": "▼", "undecided": "○"}
"""A decision has a sign as well as a colour."""

ANSWERS = "baseline"
"""The role of comparisons that answer the question; the others are to be known beside it."""

ROOM = 8

PADDING = 0.06
"""Of the width of the intervals' axis, on either side."""


@dataclass(frozen=True)
class Span:
    """An interval on the axis that all of them share, from 0 to 100: its ends, where the
    difference lies, and where no difference does."""

    low: float
    high: float
    value: float
    zero: float


@dataclass(frozen=True)
class Comparison:
    """One difference, as the page writes it."""

    arm: str
    than: str
    role: str
    difference: str
    interval: str
    p: str
    decision: str
    sign: str
    note: str
    span: Span | None
    mark: Mark | None


@dataclass(frozen=True)
class Answer:
    question: str
    sentences: Sequence[str]
    decision: str
    """That of all comparisons that answer the question, where they agree and the first sentence
    does not begin with it."""
    key: str
    better: str
    rule: str
    comparisons: Sequence[Comparison]
    facts: Sequence[tuple[str, str]]
    warnings: int

    @property
    def first(self) -> Sequence[Comparison]:
        """As many comparisons as there is room for in the first screen."""
        return self.comparisons[:ROOM]

    @property
    def others(self) -> Sequence[Comparison]:
        return self.comparisons[ROOM:]

    @property
    def controlled(self) -> bool:
        """Whether some comparisons stand beside the answer."""
        return any(each.role for each in self.comparisons)

    @property
    def adjusted(self) -> bool:
        """Whether there is a column of p."""
        return any(each.p for each in self.comparisons)


def answer(material: Material) -> Answer:
    result = material.result
    found = result.get("verdict") or {}
    entries = found.get("comparisons") or []
    places, digits = spans(entries), decimals(entries)
    comparisons = [
        comparison(entry, span, material.marks.get(entry["arm"]), digits)
        for entry, span in zip(entries, places, strict=True)
    ]
    answering = [each for each in comparisons if not each.role]
    key = found.get("key", result["headline"])
    asked = question(result, answering)
    first, *others = verdict(result)
    first = first.removeprefix(asked).strip()
    decisions = {each.decision for each in answering}
    agreed = decisions.pop() if len(decisions) == 1 else ""
    return Answer(
        question=asked,
        sentences=[first, *others],
        decision="" if first.lower().startswith(agreed) else agreed,
        key=key,
        better=found.get("better", result["better"][key]),
        rule=found.get("rule", ""),
        comparisons=comparisons,
        facts=facts(material, key),
        warnings=len(result.get("warnings", ())),
    )


def question(result: Mapping[str, Any], answering: Sequence[Comparison]) -> str:
    """The comparison as a question; of all other arms where nothing says which."""
    arms = list(dict.fromkeys(each.arm for each in answering))
    than = answering[0].than if answering else result["baseline"]
    if not arms:
        arms = [name for name in result["arms"] if name != than]
    if not arms:
        return f"What does {than} score?"
    if len(arms) == 1:
        return f"Is {arms[0]} better than {than}?"
    return f"Which of {len(arms)} arms are better than {than}?"


def comparison(
    entry: Mapping[str, Any], span: Span | None, mark: Mark | None, digits: int
) -> Comparison:
    low_high, spread = entry.get("interval"), entry.get("spread")
    p = entry.get("adjusted") if entry.get("adjusted") is not None else entry.get("p")
    decision = entry["decision"]
    return Comparison(
        arm=entry["arm"],
        than=entry["than"],
        role="" if entry["role"] == ANSWERS else entry["role"],
        difference=signed(entry["difference"], digits),
        interval=" to ".join(signed(end, digits) for end in low_high) if low_high else "",
        p="" if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001",
        decision=decision,
        sign=SIGNS.get(decision, ""),
        note="" if low_high or spread is None else f"± {spread:.{digits}f} between sampling seeds",
        span=span,
        mark=mark,
    )


def signed(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:+.{digits}f}".replace("-", MINUS)


def decimals(entries: Sequence[Mapping[str, Any]]) -> int:
    """Of all differences alike, so that they stand below each other: three digits of the
    largest."""
    largest = max((abs(end) for each in reaches(entries) for end in each), default=0.0)
    if not 0 < largest < math.inf:
        return 3
    return min(max(2 - math.floor(math.log10(largest)), 0), 12)


def reaches(entries: Sequence[Mapping[str, Any]]) -> list[tuple[float, ...]]:
    """The ends of each interval, where there is one, and the difference."""
    return [(*(entry["interval"] or ()), entry["difference"]) for entry in entries]


def spans(entries: Sequence[Mapping[str, Any]]) -> list[Span | None]:
    """Where the differences and their intervals lie on one axis, which has 0 on it."""
    reach = reaches(entries)
    ends = [end for each in reach for end in each if math.isfinite(end)]
    lowest, highest = min([0.0, *ends]), max([0.0, *ends])
    room = (1 + 2 * PADDING) * ((highest - lowest) or 1.0)

    def place(value: float) -> float:
        return round(100 * ((value - lowest) / room + PADDING), 2)

    return [
        Span(place(min(each)), place(max(each)), place(each[-1]), place(0.0))
        if all(map(math.isfinite, each))
        else None
        for each in reach
    ]


def in_words(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"


def facts(material: Material, key: str) -> list[tuple[str, str]]:
    """What the numbers are of: how many images, seeds and real images, and the floor."""
    result, seeds = material.result, material.seeds
    samples = result["samples"]
    scored = [arm for arm in result["arms"].values() if key in arm["metrics"]]
    real = scored[0]["real_images"] if scored else {}
    floor = scored[0]["metrics"][key]["floor"] if scored else None
    listed = [
        ("images per arm", f"{samples['count']:,} × {samples['seeds']} sampling seeds"),
        ("trainings per arm", f"{len(seeds)} ({in_words(seeds)})"),
    ]
    if real:
        listed.append(
            ("real images", f"{real.get('train', 0):,} trained on, {real['held_out']:,} held out")
        )
    if floor is not None:
        listed.append(("floor: new real images", f"{floor:.3f}"))
    return listed
