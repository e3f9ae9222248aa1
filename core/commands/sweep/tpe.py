"""Suggestions of a tree-structured Parzen estimator (TPE; Bergstra and others, NeurIPS 2011), which
is Optuna's.

The study lives in memory and is built anew by every command: the same seed makes the same
suggestions as long as it is given the same scores, and these lie in the store, under keys. So a
search that was killed continues with the suggestions that it had, and no database can disagree with
the products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fw.core.commands.sweep.axes import Axis
from fw.core.errors import FwError

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution

SEED = 0
"""That of the sampler. It is no option, so that nobody tries several and keeps the best."""

Places = tuple[int, ...]
"""A point by the places of its values on their axes."""


class Suggestions:
    """Points that are likely to be better than those that have scores."""

    def __init__(self, axes: Sequence[Axis], better: str):
        self.study = new_study(better)
        self.keys = [axis.key for axis in axes]
        self.distributions = {axis.key: distribution(axis.values) for axis in axes}
        self.open: list[Trial] = []

    def make(self, count: int) -> list[Places]:
        """So many at once; some may have been suggested before."""
        self.open = [self.study.ask(self.distributions) for _ in range(count)]
        return [tuple(trial.params[key] for key in self.keys) for trial in self.open]

    def tell(self, scores: Sequence[float | None]) -> None:
        """The scores of the last ones, None of those that failed."""
        from optuna.trial import TrialState

        for trial, score in zip(self.open, scores, strict=True):
            if score is None:
                self.study.tell(trial, state=TrialState.FAIL)
            else:
                self.study.tell(trial, score)


def new_study(better: str) -> Study:
    """With Optuna's defaults and a fixed seed; FwError where Optuna is not installed."""
    try:
        import optuna
    except ImportError:
        raise FwError("--sampler optuna needs Optuna: pip install 'fw[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        direction="minimize" if better == "lower" else "maximize",
        sampler=optuna.samplers.TPESampler(seed=SEED),
    )


def distribution(values: Sequence[Any]) -> BaseDistribution:
    """The places of an axis's values: numbers in order are a scale, whatever their spacing; other
    values are categories."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if in_order(values):
        return IntDistribution(0, len(values) - 1)
    return CategoricalDistribution(range(len(values)))


def in_order(values: Sequence[Any]) -> bool:
    """Whether these are rising or falling numbers."""
    if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in values):
        return False
    return list(values) in (sorted(values), sorted(values, reverse=True))
