"""Spans of time in words."""

from __future__ import annotations

import itertools

UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def span(seconds: float) -> str:
    """The two largest units: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = max(0, round(seconds))
    for (unit, size), (smaller, part) in itertools.pairwise(UNITS):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"
