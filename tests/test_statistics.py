"""Decisions on planted cases: how often they are made where nothing differs, how often intervals
cover, and how often true differences are decided."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from fw.core.report.statistics import LEVEL, difference, findable, holm, power

REPEATS = 4000
"""So many that a share of 0.95 has a standard error of 0.0034."""

TRAININGS = (3, 5, 10)


def planted(trainings: int, *shape: int) -> np.ndarray:
    """Standard normal differences, the same in every run of the tests."""
    return np.random.default_rng(trainings).normal(size=(REPEATS, *shape, trainings))


@pytest.mark.parametrize("trainings", TRAININGS)
def test_arms_that_are_alike_are_undecided_one_by_one_and_as_a_family(trainings: int) -> None:
    ps = [[difference(list(one)).p or 0 for one in family] for family in planted(trainings, 3)]
    alone = np.mean([family[0] >= LEVEL for family in ps])
    together = np.mean([min(holm(family)) >= LEVEL for family in ps])
    assert 0.94 <= alone <= 0.96
    assert 0.94 <= together <= 0.96


@pytest.mark.parametrize("trainings", TRAININGS)
def test_a_common_baseline_makes_no_family_bolder(trainings: int) -> None:
    arms, baseline = planted(trainings, 3), planted(trainings + 100, 1)[..., :trainings]
    ps = [[difference(list(one)).p or 0 for one in family] for family in arms - baseline]
    assert np.mean([min(holm(family)) >= LEVEL for family in ps]) >= 0.94


@pytest.mark.parametrize("trainings", TRAININGS)
def test_intervals_cover_the_true_difference_in_95_of_100_cases(trainings: int) -> None:
    found = [difference(list(1.3 + 2 * one)).interval for one in planted(trainings)]
    covered = np.mean([each is not None and each[0] <= 1.3 <= each[1] for each in found])
    assert 0.94 <= covered <= 0.96


@pytest.mark.parametrize("trainings", TRAININGS)
def test_a_difference_of_three_standard_errors_is_decided_as_often_as_theory_says(
    trainings: int,
) -> None:
    effect = 3 / math.sqrt(trainings)
    decided = np.mean(
        [(difference(list(effect + one)).p or 1) < LEVEL for one in planted(trainings)]
    )
    freedom = trainings - 1
    border = stats.t.ppf(1 - LEVEL / 2, freedom)
    theory = stats.nct.sf(border, freedom, 3) + stats.nct.cdf(-border, freedom, 3)
    assert decided == pytest.approx(theory, abs=0.03)
    assert power(effect, trainings) == pytest.approx(theory, abs=1e-6)


def test_what_can_be_decided_is_what_the_page_says() -> None:
    sizes = [round(findable(trainings), 1) for trainings in TRAININGS]
    assert sizes == [3.3, 1.7, 1.0]
    sizes = [round(findable(trainings, level=LEVEL / 4), 1) for trainings in TRAININGS]
    assert sizes == [6.5, 2.5, 1.3]
    assert power(findable(5), 5) == pytest.approx(0.8)


def test_an_interval_is_that_of_an_independent_formula() -> None:
    values = [0.3, -0.1, 0.8, 0.4]
    found = difference(values)
    theirs = stats.ttest_1samp(values, 0.0)
    assert found.p == pytest.approx(theirs.pvalue)
    assert found.interval == pytest.approx(theirs.confidence_interval(0.95))


def test_a_family_is_adjusted_as_the_procedure_says() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("values", [[1.5], [2.0, 2.0, 2.0], [1.0, math.inf, 2.0], [math.nan, 1.0]])
def test_without_a_spread_nothing_is_claimed(values: list[float]) -> None:
    found = difference(values)
    assert (found.interval, found.p) == (None, None)
    assert found.values == tuple(values)


def test_a_percentile_bootstrap_of_so_few_differences_would_cover_too_little() -> None:
    """The reason for Student's t, as the page gives it."""
    draw = np.random.default_rng(0)
    covered = []
    for trainings in TRAININGS:
        values = planted(trainings)
        chosen = draw.integers(0, trainings, size=(REPEATS, 400 * trainings))
        means = np.take_along_axis(values, chosen, axis=1).reshape(REPEATS, 400, -1).mean(2)
        low, high = np.quantile(means, [0.025, 0.975], axis=1)
        covered.append(np.mean((low <= 0) & (high >= 0)))
    assert covered == pytest.approx([0.74, 0.83, 0.90], abs=0.02)
