"""JSON that every reader takes: it knows no infinite numbers and none that is not a number, which
Python would write without quotes. They are written as text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

WORDS = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}
"""What is written for them, as Python, JavaScript and others read numbers in text."""

NAMES = frozenset({"recipe", "arm", "than", "baseline", "baselines", "headline", "key", "mark"})
"""Where a text is a name, whatever it says."""


def strict(values: Any) -> str:
    """A JSON document of values."""
    return json.dumps(in_text(values), indent=1, allow_nan=False)


def in_text(values: Any) -> Any:
    """The same with words for numbers that are not finite."""
    if isinstance(values, float) and not math.isfinite(values):
        return next(word for word, number in WORDS.items() if same(number, values))
    if isinstance(values, Mapping):
        return {key: in_text(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [in_text(value) for value in values]
    return values


def in_numbers(values: Any) -> Any:
    """The values of such a document as they were before; those of a document without words are as
    they are."""
    if isinstance(values, str):
        return WORDS.get(values, values)
    if isinstance(values, dict):
        return {key: value if key in NAMES else in_numbers(value) for key, value in values.items()}
    if isinstance(values, list):
        return [in_numbers(value) for value in values]
    return values


def same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))
