"""The contract of a metric: the scores that it promises, from nothing but the features that it is given."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from hypothesis import strategies as st
from torch import Tensor

from fw.core.errors import FwError
from fw.core.kinds import Metric
from fw.core.kinds.boundaries import checked_scores
from fw.core.randomness import generator
from fw.core.testing import tiny, usual
from fw.core.testing.contract import Clause
from fw.core.testing.forall import forall
from fw.core.testing.global_state import ambient
from fw.core.testing.keys import keys_are_words
from fw.core.testing.once import once
from fw.core.testing.tiny import as_in_a_run
from fw.core.testing.usual import Scores, Use
from fw.core.types import Reference

COUNTS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)
"""Numbers of images to try it on: it may refuse too few."""


def scores_as_promised(metric: Metric) -> None:
    """compare() gives a number for each of its keys, for features of any number and size"""

    least = fewest(metric)

    def body(train: int, held_out: int, fakes: int, size: int) -> None:
        reference, fake = features(metric, least + train, least + held_out, least + fakes, size)
        with contextlib.suppress(FwError):
            scores = scored(metric, reference, fake)
            with as_in_a_run():
                checked_scores(metric, scores)

    more = st.integers(0, 40)
    with as_in_a_run():
        checked_scores(metric, scored(metric, *few(metric)))
    forall(body, train=more, held_out=more, fakes=more, size=st.sampled_from([2, 6, 24]), examples=8)


def floor_is_scored(metric: Metric) -> None:
    """compare() scores the held-out images themselves, for the floor"""
    reference, _ = few(metric)  # as many held-out images as samples, of the same classes one by one
    with as_in_a_run():
        checked_scores(metric, scored(metric, reference, reference.held_out))


@usual.repeatable
def function_of_the_features(metric: Metric) -> Iterator[Callable[[], dict[str, str]]]:
    """compare() gives the same for the same features, whatever was done before and whatever global generators hold"""
    other = few(metric, seed=1)

    def call() -> dict[str, str]:
        scores = metric.compare(*few(metric))
        metric.compare(*other)
        return {key: repr(value) for key, value in scores.items()}

    yield call


@usual.inputs_untouched
def inputs_untouched(metric: Metric) -> Iterator[Use]:
    """compare() does not write into the features"""
    reference, fake = few(metric)
    given = {
        "the features of the samples": fake,
        "the features of the training images": reference.train,
        "the features of the held-out images": reference.held_out,
        "the classes of the training images": reference.conditions,
        "the classes of the samples": reference.asked,
    }
    yield Use(lambda: scored(metric, reference, fake), given)


@usual.order_does_not_matter
def order_does_not_matter(metric: Metric) -> Iterator[Scores]:
    """The order of the samples does not change the scores"""
    reference, fake = few(metric)

    def ask(order: list[int]) -> dict[str, float]:
        asked = None if reference.asked is None else reference.asked[order]
        return scored(metric, replace(reference, asked=asked), fake[order])

    yield Scores(len(fake), ask)


def one_sample(metric: Metric) -> None:
    """A single sample is scored, or refused with an FwError"""
    reference, fake = few(metric)
    with contextlib.suppress(FwError):
        asked = reference.asked[:1] if reference.asked is not None else None
        checked_scores(metric, scored(metric, replace(reference, asked=asked), fake[:1]))


def nan_is_seen(metric: Metric) -> None:
    """Features that are not a number are not scored as if they were"""

    def body(row: int, rows: int) -> None:
        reference, fake = few(metric)
        fake[row : row + rows] = float("nan")
        try:
            scores = scored(metric, reference, fake)
        except Exception:
            return
        numbers = [f"{key} = {value:.6g}" for key, value in scores.items() if not math.isnan(value)]
        assert len(numbers) < len(scores), f"{', '.join(numbers)} from samples with NaN in {rows} of {len(fake)}"

    forall(body, row=st.integers(0, fewest(metric) - 1), rows=st.integers(1, 3), examples=3)


CLAUSES: tuple[Clause, ...] = (
    keys_are_words,
    scores_as_promised,
    floor_is_scored,
    function_of_the_features,
    inputs_untouched,
    order_does_not_matter,
    one_sample,
    nan_is_seen,
)


@once
def fewest(metric: Metric) -> int:
    """The smallest number of training images, held-out images and samples that it scores."""

    def attempt(count: int) -> None:
        scored(metric, *features(metric, count, count, count))

    return usual.first_taken(COUNTS, attempt, "images with 6 features")


def few(metric: Metric, seed: int = 0) -> tuple[Reference, Tensor]:
    """The smallest sets of features that it scores, the same on every call."""
    count = fewest(metric)
    return features(metric, count, count, count, seed=seed)


def features(
    metric: Metric, train: int, held_out: int, fakes: int, size: int = 6, seed: int = 0
) -> tuple[Reference, Tensor]:
    """Features of real images in three clusters, and of samples a little beside them, float32 (n, size).

    A metric that reads conditions is told the clusters; of one training image the class is not known.
    """
    real = tiny.features(train + held_out, size, seed)
    beside = tiny.features(fakes, size, seed) + torch.rand(fakes, size, generator=generator(seed, "beside"))
    reference = Reference(real[:train].clone(), real[train:].clone())
    if metric.reads_conditions:
        known, asked = (torch.arange(count) % tiny.CLASSES for count in (train, fakes))
        known[-1] = -1
        reference = replace(reference, conditions=known, asked=asked)
    return reference, beside


def scored(metric: Metric, reference: Reference, fake: Tensor) -> dict[str, float]:
    """Its scores, from the same state of the global generators each time; that they do not matter is one clause."""
    with ambient(0):
        return metric.compare(reference, fake)
