"""The contract of a metric: the scores that it promises, from nothing but the features that it
is given."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from fw.core.errors import FwError
from fw.core.kinds import Metric
from fw.core.kinds.boundaries import (
    checked_floor,
    checked_limits,
    checked_measured,
    checked_scores,
)
from fw.core.randomness import generator
from fw.core.testing import tiny, usual
from fw.core.testing.compare import same
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


class Case(NamedTuple):
    """What a metric is given: of real images, of samples, and the classes that these were to
    show."""

    reference: Reference
    fake: Tensor
    wanted: Tensor | None = None


def scores_as_promised(metric: Metric) -> None:
    """compare() gives a number for each of its keys, for features of any number and size"""

    least = fewest(metric)

    def body(train: int, held_out: int, fakes: int, size: int) -> None:
        case = features(metric, least + train, least + held_out, least + fakes, size)
        with contextlib.suppress(FwError):
            scores = scored(metric, *case)
            with as_in_a_run():
                checked_scores(metric, scores)

    more = st.integers(0, 40)
    with as_in_a_run():
        checked_scores(metric, scored(metric, *few(metric)))
    forall(
        body, train=more, held_out=more, fakes=more, size=st.sampled_from([2, 6, 24]), examples=8
    )


def floor_is_scored(metric: Metric) -> None:
    """compare() scores held-out images, and floor() gives numbers for keys that it promised, of any
    number of images"""
    reference, _, wanted = few(
        metric
    )  # as many held-out images as samples, of the same classes one by one
    held_out = reference.held_out
    with as_in_a_run():
        checked_scores(metric, scored(metric, reference, held_out, wanted))
    twice = features(metric, *(2 * len(held_out),) * 3).reference.held_out
    both = None if wanted is None else torch.cat([wanted, wanted])
    for images, classes, count in (
        (held_out, wanted, len(held_out)),
        (held_out, wanted, 2 * len(held_out)),
        (twice, both, len(held_out)),
    ):
        with ambient(0):
            floor = metric.floor(metric.prepare(reference), images, count, classes)
        with as_in_a_run():
            checked_floor(metric, floor)


@usual.repeatable
def function_of_the_features(metric: Metric) -> Iterator[Callable[[], dict[str, str]]]:
    """compare() gives the same for the same features, whatever was done before and whatever
    global generators hold"""
    other = few(metric, seed=1)

    def call() -> dict[str, str]:
        scores = compared(metric, *few(metric))
        compared(metric, *other)
        return {key: repr(value) for key, value in scores.items()}

    yield call


def prepared_once(metric: Metric) -> None:
    """What prepare() made serves any number of comparisons, each as if it were the first"""
    reference, fake, wanted = few(metric)
    with ambient(0):
        prepared = metric.prepare(reference)
        first, *others = (metric.compare(prepared, fake.clone(), wanted) for _ in range(3))
    for scores in others:
        for key, value in first.items():
            assert same(value, scores[key]), (
                f"{key} is {value!r} at first and {scores[key]!r} later"
            )


def kept_in_the_store(metric: Metric) -> None:
    """What measure() finds out of real images is tensors, and with what was kept of them the scores
    are the same"""
    case = few(metric)
    features_alone = Reference(case.reference.train, case.reference.held_out)
    with ambient(0), as_in_a_run():
        measured = checked_measured(metric, metric.measure(features_alone))
    if metric.measures:
        kept = {name: tensor.clone() for name, tensor in measured.items()}
        scores = scored(metric, *case)
        again = scored(metric, replace(case.reference, measured=kept), case.fake, case.wanted)
        for key, value in scores.items():
            assert same(value, again[key]), (
                f"{key} is {value!r} measured now and {again[key]!r} with what was kept"
            )


@usual.repeatable
def limits_by_chance(metric: Metric) -> Iterator[Callable[[], dict[str, str]]]:
    """by_chance() gives two numbers, the lower one first, for keys that it promised, and the same
    on every call"""
    reference, fake, _ = few(metric)
    with ambient(0):
        prepared = metric.prepare(reference)

    def call() -> dict[str, str]:
        with as_in_a_run():
            limits = checked_limits(metric, metric.by_chance(prepared, len(fake)))
        return {key: repr(value) for key, value in limits.items()}

    yield call


@usual.inputs_untouched
def inputs_untouched(metric: Metric) -> Iterator[Use]:
    """Neither prepare() nor compare() writes into the features"""
    reference, fake, wanted = few(metric)
    given = {
        "the features of the samples": fake,
        "the features of the training images": reference.train,
        "the features of the held-out images": reference.held_out,
        "the classes of the training images": reference.conditions,
        "the classes of the samples": wanted,
    }
    yield Use(lambda: scored(metric, reference, fake, wanted), given)


@usual.order_does_not_matter
def order_does_not_matter(metric: Metric) -> Iterator[Scores]:
    """The order of the samples does not change the scores, but those of subsets by position"""
    reference, fake, wanted = few(metric)

    def ask(order: list[int]) -> dict[str, float]:
        classes = None if wanted is None else wanted[order]
        scores = scored(metric, reference, fake[order], classes)
        return {key: scores[key] for key in scores if key not in metric.by_position}

    yield Scores(len(fake), ask)


def one_sample(metric: Metric) -> None:
    """A single sample is scored, or refused with an FwError"""
    reference, fake, wanted = few(metric)
    with contextlib.suppress(FwError):
        first = None if wanted is None else wanted[:1]
        checked_scores(metric, scored(metric, reference, fake[:1], first))


def nan_is_seen(metric: Metric) -> None:
    """Features that are not a number are not scored as if they were"""

    def body(row: int, rows: int) -> None:
        reference, fake, wanted = few(metric)
        fake[row : row + rows] = float("nan")
        try:
            scores = scored(metric, reference, fake, wanted)
        except Exception:
            return
        numbers = [f"{key} = {value:.6g}" for key, value in scores.items() if not math.isnan(value)]
        assert len(numbers) < len(scores), (
            f"{', '.join(numbers)} from samples with NaN in {rows} of {len(fake)}"
        )

    forall(body, row=st.integers(0, fewest(metric) - 1), rows=st.integers(1, 3), examples=3)


CLAUSES: tuple[Clause, ...] = (
    keys_are_words,
    scores_as_promised,
    floor_is_scored,
    function_of_the_features,
    prepared_once,
    kept_in_the_store,
    limits_by_chance,
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


def few(metric: Metric, seed: int = 0) -> Case:
    """The smallest sets of features that it scores, the same on every call."""
    count = fewest(metric)
    return features(metric, count, count, count, seed=seed)


def features(
    metric: Metric, train: int, held_out: int, fakes: int, size: int = 6, seed: int = 0
) -> Case:
    """Features of real images in three clusters, and of samples a little beside them, float32 (n,
    size).

    A metric that reads conditions is given the clusters; of one training image the class is not
    known.
    """
    real = tiny.features(train + held_out, size, seed)
    beside = tiny.features(fakes, size, seed) + torch.rand(
        fakes, size, generator=generator(seed, "beside")
    )
    reference = Reference(real[:train].clone(), real[train:].clone())
    if not metric.reads_conditions:
        return Case(reference, beside)
    known, wanted = (torch.arange(count) % tiny.CLASSES for count in (train, fakes))
    known[-1] = -1
    return Case(replace(reference, conditions=known), beside, wanted)


def scored(
    metric: Metric, reference: Reference, fake: Tensor, wanted: Tensor | None = None
) -> dict[str, float]:
    """Its scores, from the same state of the global generators each time; that they do not
    matter is one clause."""
    with ambient(0):
        return compared(metric, reference, fake, wanted)


def compared(
    metric: Metric, reference: Reference, fake: Tensor, wanted: Tensor | None = None
) -> dict[str, float]:
    return metric.compare(metric.prepare(reference), fake, wanted)
