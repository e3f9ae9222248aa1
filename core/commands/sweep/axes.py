"""`--over KEY=VALUES`: the values that a key is to take, as ranges in exact decimals, lists, or
both."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from fw.core.errors import FwError, RecipeError
from fw.core.recipe.source import parse

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
RANGE = re.compile(rf"({NUMBER}):({NUMBER}):(x?)({NUMBER})")
LOOSE = re.compile(r"[^:]*:[^:]*(:[^:]*)?")
"""What was meant as a range, and is none."""

MOST_VALUES = 1000

EXAMPLES = "such as guidance.scale=1:3:0.25, train.lr=0.001:0.1:x10 or annotator.clusters=10,30,100"


@dataclass(frozen=True)
class Axis:
    """A key of an arm and the values that it takes, in order."""

    key: str
    values: tuple[Any, ...]

    @property
    def words(self) -> list[str]:
        return self.key.split(".")


def axes(texts: Sequence[str]) -> list[Axis]:
    """What `--over` says, once for each key; FwError for what is no such thing."""
    found = [axis(text) for text in texts]
    for each in found:
        if [other.key for other in found].count(each.key) > 1:
            raise FwError(f"--over {each.key}: it is there twice; name all its values in one")
    return found


def axis(text: str) -> Axis:
    key, equals, values = text.partition("=")
    if not equals or not all(key.split(".")) or not values.strip():
        raise FwError(f"--over {text}: expected KEY=VALUES, {EXAMPLES}")
    try:
        listed = parse(f"[{values}]", "--over").data
    except RecipeError:
        raise FwError(f"--over {text}: these are no values in YAML, {EXAMPLES}") from None
    found = [value for entry in listed for value in expanded(entry, text)]
    if len(found) > MOST_VALUES:
        raise FwError(f"--over {text}: more than {MOST_VALUES:,} values; take a longer step")
    for value in found:
        if [repr(other) for other in found].count(repr(value)) > 1:
            raise FwError(f"--over {text}: {value} is there twice")
    return Axis(key, tuple(found))


def expanded(entry: Any, text: str) -> Iterator[Any]:
    """A value, or all of a range."""
    if not isinstance(entry, str) or not LOOSE.fullmatch(entry):
        yield entry
        return
    if (match := RANGE.fullmatch(entry)) is None:
        raise FwError(
            f"--over {text}: '{entry}' is no range; write START:STOP:STEP, or START:STOP:xFACTOR "
            "for equal ratios"
        )
    start, stop, step = (Decimal(match[group]) for group in (1, 2, 4))
    yield from map(
        plain, geometric(start, stop, step, text) if match[3] else linear(start, stop, step, text)
    )


def linear(start: Decimal, stop: Decimal, step: Decimal, text: str) -> Iterator[Decimal]:
    if step == 0 or (stop - start) * step < 0:
        raise FwError(f"--over {text}: no steps of {step} lead from {start} to {stop}")
    steps = (stop - start) / step
    whole = int(steps)
    if steps != whole:
        ends = f"{plain(start + whole * step)} and {plain(start + (whole + 1) * step)}"
        raise FwError(
            f"--over {text}: steps of {step} from {start} do not meet {stop}: they come to {ends}"
        )
    for place in range(min(whole, MOST_VALUES) + 1):
        yield start + place * step


def geometric(start: Decimal, stop: Decimal, factor: Decimal, text: str) -> Iterator[Decimal]:
    up = abs(stop) >= abs(start)
    if factor <= 0 or factor == 1 or start == 0 or start * stop <= 0 or (factor > 1) != up:
        raise FwError(f"--over {text}: no factors of {factor} lead from {start} to {stop}")
    value = start
    for _ in range(MOST_VALUES):
        yield value
        if value == stop:
            return
        before, value = value, value * factor
        if (abs(value) > abs(stop)) == up and value != stop:
            raise FwError(
                f"--over {text}: factors of {factor} from {start} do not meet {stop}: they come to "
                f"{plain(before)} and {plain(value)}"
            )


def plain(value: Decimal) -> int | float:
    """As a recipe has it: whole numbers stay whole."""
    return int(value) if value == int(value) else float(value)
