"""Whether one arm is better than another: what the differences of paired trainings allow to say.

The unit is a training: two arms that were trained from the same seed share its batches, its noise
and the images that they are judged by, so their difference is one observation. Student's t over R
of them has R - 1 degrees of freedom; several comparisons share one level by Holm's step-down
procedure (Holm, 1979), which holds whatever the dependence between them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.05
"""The chance that arms which are all alike bring any decision at all; intervals cover 95 %."""

ROUNDING = 1e-9
"""Differences that differ by a smaller share of themselves do so by rounding: shares of few images,
say, that are all a fortieth apart."""


@dataclass(frozen=True)
class Difference:
    """What `values`, one for each training, say of the difference that all trainings would have."""

    values: tuple[float, ...]
    mean: float
    interval: tuple[float, float] | None
    """That covers it in 95 of 100 cases, by itself; None where there is no spread to judge by."""
    p: float | None
    """Of no difference, two-sided, by itself; None where there is no interval."""


def difference(values: Sequence[float]) -> Difference:
    """The mean of at least one difference, and between what values it lies by Student's t."""
    middle, finite = mean(values), all(map(math.isfinite, values))
    std = statistics.stdev(values) if finite and len(values) > 1 else 0.0
    # Of one training, or of numbers too coarse to differ, nothing says how far to trust them.
    if not std > ROUNDING * abs(middle):
        return Difference(tuple(values), middle, None, None)
    from scipy.special import stdtr, stdtrit  # most commands compare nothing

    error, freedom = std / math.sqrt(len(values)), len(values) - 1
    reach = float(stdtrit(freedom, 1 - LEVEL / 2)) * error
    return Difference(
        tuple(values),
        middle,
        (middle - reach, middle + reach),
        float(2 * stdtr(freedom, -abs(middle) / error)),
    )


def mean(values: Sequence[float]) -> float:
    """Infinite, or not a number, where a value is."""
    if len(values) == 1:
        return values[0]
    if not all(map(math.isfinite, values)):
        return sum(values)
    try:
        return statistics.fmean(values)
    except OverflowError:  # their sum is no float, and their mean is
        return statistics.mean(values)


def holm(ps: Sequence[float]) -> list[float]:
    """The p-values of comparisons that are made together, adjusted so that each may be compared
    with the common level."""
    order = sorted(range(len(ps)), key=lambda place: ps[place])
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = highest
    return adjusted


def power(effect: float, trainings: int, level: float = LEVEL) -> float:
    """How often a true difference of `effect` standard deviations of paired differences is
    decided, by the noncentral t."""
    from scipy.special import ncfdtr, stdtrit

    freedom = trainings - 1
    border = stdtrit(freedom, 1 - level / 2)  # t squared is F with one degree of freedom
    return float(1 - ncfdtr(1, freedom, trainings * effect**2, border**2))


def findable(trainings: int, wanted: float = 0.8, level: float = LEVEL) -> float:
    """The difference, in standard deviations of paired differences, that so many trainings decide
    in a share `wanted` of cases."""
    from scipy.optimize import brentq

    def missing(effect: float) -> float:
        return power(effect, trainings, level) - wanted

    enough = 1.0
    while missing(enough) < 0:
        enough *= 2
    return float(brentq(missing, 0.0, enough))
