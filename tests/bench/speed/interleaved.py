"""Two ways of doing the same, by turns in one process: the ratio of what they cost.

Other work on the machine slows both alike, so a ratio of neighbours says more than two times would.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

Costs = Callable[[], float]
"""Does something, and returns the CPU seconds that it took."""


class Ratio(NamedTuple):
    """The median of several ratios, and their quartiles."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(ratios: Sequence[float]) -> Ratio:
        low, median, high = np.quantile(ratios, (0.25, 0.5, 0.75)).tolist()
        return Ratio(median, low, high)


@dataclass(frozen=True)
class Paired:
    """What each of two ways cost, turn by turn."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def cost(self) -> Ratio:
        """How much of their time ours took."""
        return Ratio.of([a / b for a, b in zip(self.ours, self.theirs, strict=True)])

    @property
    def speed(self) -> Ratio:
        """How many times as fast ours was."""
        return Ratio.of([b / a for a, b in zip(self.ours, self.theirs, strict=True)])

    @property
    def noise(self) -> float:
        """By which factor a turn of ours differed from the next, in the median: what differs less
        is not to be believed. 1 where there was one turn."""
        turns = np.log(self.ours)
        return float(np.exp(np.median(np.abs(np.diff(turns))))) if len(turns) > 1 else 1.0


def paired(ours: Costs, theirs: Costs, pairs: int) -> Paired:
    """ABAB, after both were done once to warm up."""
    ours(), theirs()
    turns = [(ours(), theirs()) for _ in range(pairs)]
    return Paired(*(tuple(costs) for costs in zip(*turns, strict=True)))


def timed(work: Callable[[], object]) -> Costs:
    """The work, with the CPU seconds of this process as what it costs."""

    def costs() -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    return costs


def children() -> float:
    """CPU seconds of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
