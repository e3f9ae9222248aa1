"""The interval of noise levels in which something acts (arXiv 2404.07724)."""

from __future__ import annotations

Interval = tuple[float, float] | None
"""Noise levels lo < sigma <= hi, or all."""


def lowest_first(interval: Interval) -> Interval:
    if interval is not None and not 0 <= interval[0] < interval[1]:
        raise ValueError(f"an interval is [lo, hi] with 0 <= lo < hi, not {list(interval)}")
    return interval
