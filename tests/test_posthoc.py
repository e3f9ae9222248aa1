"""Averages of any length are made after training of a few that were tracked, as closely as the
closed form says."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from fw.core.learning.posthoc import (
    PowerAverage,
    WeightedSum,
    error,
    exponent,
    factors,
    kept_averages,
    overlaps,
    power_decay,
)
from fw.core.settings import Train

STEPS = 600


def shares(average: PowerAverage, steps: int = STEPS) -> Tensor:
    """How much of each step's weights is in an average that is updated step by step, float64
    (steps,)."""
    result = torch.zeros(steps, dtype=torch.float64)
    for step in range(1, average.step + 1):
        kept = power_decay(average.width, step)
        result *= kept
        result[step - 1] += 1 - kept
    return result


def density(average: PowerAverage, s: float) -> float:
    g, t = average.exponent, average.step
    return (g + 1) * s**g / t ** (g + 1) if s <= t else 0.0


def both(one: PowerAverage, other: PowerAverage, s: float) -> float:
    return density(one, s) * density(other, s)


def test_the_exponents_are_those_of_the_paper() -> None:
    assert exponent(0.05) == pytest.approx(16.97, abs=0.005)
    assert exponent(0.10) == pytest.approx(6.94, abs=0.005)


@pytest.mark.parametrize("width", [0.03, 0.1, 0.25])
def test_a_tracked_average_has_the_width_that_it_is_named_for(width: float) -> None:
    share = shares(PowerAverage(width, STEPS))
    when = torch.arange(1, STEPS + 1, dtype=torch.float64) / STEPS
    mean = share @ when
    assert share.sum() == pytest.approx(1)
    assert float((share @ (when - mean).square()).sqrt()) == pytest.approx(width, rel=0.01)


def test_overlaps_are_the_integrals_of_products() -> None:
    some = [PowerAverage(0.05, 100), PowerAverage(0.1, 70), PowerAverage(0.2, 100)]
    for row, one in zip(overlaps(some, some).tolist(), some, strict=True):
        for value, other in zip(row, some, strict=True):
            product = partial(both, one, other)
            integral, _ = quad(product, 0, min(one.step, other.step))
            assert value == pytest.approx(integral, rel=1e-6)


@pytest.mark.parametrize("snapshots", [1, 5, 16])
@pytest.mark.parametrize("width", [0.03, 0.05, 0.075, 0.1, 0.15, 0.2])
def test_a_sum_is_as_far_off_as_the_closed_form_says(width: float, snapshots: int) -> None:
    settings = Train(steps=STEPS, snapshots=snapshots, averages=(0.05, 0.1))
    kept, wanted = kept_averages(settings, STEPS), PowerAverage(width, STEPS)
    made = factors(kept, wanted) @ torch.stack([shares(each) for each in kept])
    exact = shares(wanted)
    off = float((made - exact).norm() / exact.norm())
    assert off == pytest.approx(error(kept, wanted), rel=0.02, abs=1e-6)


def test_sixteen_snapshots_of_two_widths_make_any_between_to_a_percent() -> None:
    kept = kept_averages(Train(steps=STEPS, snapshots=16, averages=(0.05, 0.1)), STEPS)
    for width in (0.04, 0.05, 0.06, 0.075, 0.09, 0.1, 0.12, 0.15):
        assert error(kept, PowerAverage(width, STEPS)) < 0.011


def test_an_average_of_a_recorded_training_is_made_to_within_the_stated_error() -> None:
    """Weights that wander: the made average is nearer to the one tracked at that width than a
    hundredth of how far averages of neighbouring widths are apart."""
    steps = torch.randn(STEPS, 50, generator=torch.Generator().manual_seed(0))
    path = steps.double().cumsum(0)
    settings = Train(steps=STEPS, snapshots=16, averages=(0.05, 0.1))
    kept = kept_averages(settings, STEPS)
    wanted = PowerAverage(0.075, STEPS)
    total = WeightedSum()
    for average, factor in zip(kept, factors(kept, wanted).tolist(), strict=True):
        total.add({"w": (shares(average) @ path).float()}, factor)
    made = total.like({"w": torch.empty(50)})["w"]
    tracked = {width: shares(PowerAverage(width, STEPS)) @ path for width in (0.07, 0.075, 0.08)}
    apart = (tracked[0.08] - tracked[0.07]).norm()
    assert (made - tracked[0.075]).norm() < 0.01 * apart


def test_a_width_that_was_tracked_is_itself() -> None:
    kept = kept_averages(Train(steps=STEPS, snapshots=8, averages=(0.05, 0.1)), STEPS)
    alone = [float(each == PowerAverage(0.1, STEPS)) for each in kept]
    assert factors(kept, PowerAverage(0.1, STEPS)).tolist() == pytest.approx(alone, abs=1e-9)


def test_weights_that_never_change_stay_as_they_are_whatever_the_width() -> None:
    kept = kept_averages(Train(steps=STEPS, snapshots=3, averages=(0.1,)), STEPS)
    assert factors(kept, PowerAverage(0.25, STEPS)).sum() == pytest.approx(1)


def test_what_is_not_averaged_is_as_it_was_at_the_end() -> None:
    total = WeightedSum()
    total.add({"w": torch.tensor([2.0])}, 0.25)
    total.add({"w": torch.tensor([4.0])}, 0.75)
    made = total.like({"w": torch.zeros(1), "count": torch.tensor(7)})
    assert made == {"w": torch.tensor([3.5]), "count": torch.tensor(7)}
