"""The contract of a probe: the promised scores, from what it is shown alone, better where there
is more to read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from fw.core.errors import FwError
from fw.core.job import Job
from fw.core.kinds import Glance, Probe
from fw.core.kinds.boundaries import checked_probe_scores
from fw.core.randomness import generator
from fw.core.testing import tiny, usual
from fw.core.testing.contract import Clause
from fw.core.testing.forall import forall
from fw.core.testing.global_state import ambient
from fw.core.testing.keys import keys_are_words
from fw.core.testing.once import once
from fw.core.testing.tiny import as_in_a_run
from fw.core.testing.usual import Elsewhere, Odd, Scores, Stopped, Use
from fw.core.types import Examples, Split, Told

COUNTS = (30, 120, 480, 1920)
"""Numbers of training images to try it on: it may refuse too few."""
HELD_OUT = 30
SIZE, TOKENS = 6, 4
SEED = 5
OTHERS: tuple[dict[str, Any], ...] = (
    {"of": "encoder", "blocks": None},
    {"of": "model", "blocks": None},
    {"of": "model", "blocks": ("mid",)},
    {"of": "model", "sigma": 0.123},
    {"of": "model", "draws": 17},
)
"""Other things to read, as far as the probe can: each gives numbers that cannot be compared."""


def keys_name_what_is_read(probe: Probe) -> None:
    """Probes of something else, of other blocks, at another noise level or of more draws have
    other keys"""
    found: dict[str, Probe] = {}
    given = {name: getattr(probe, name) for name in type(probe).model_fields}
    for changes in ({}, *OTHERS):
        with contextlib.suppress(ValidationError):
            other = type(probe).model_validate({**given, **changes})
            for key in other.keys:
                assert found.setdefault(key, other) == other, (
                    f"{key} is also that of {changes}: end it with `protocol`"
                )


def scores_as_promised(probe: Probe) -> None:
    """score() gives finite numbers for at least one of its keys and for no other, for splits of
    any size"""
    least = fewest(probe)

    def body(more: int, held_out: int, size: int) -> None:
        with contextlib.suppress(FwError):
            assert_promised(probe, scored(probe, *examples(probe, least + more, held_out, size)))

    assert_promised(probe, scored(probe, *few(probe)))
    sizes = st.sampled_from([SIZE, 2, 24])
    forall(body, more=st.integers(0, 40), held_out=st.integers(2, 40), size=sizes, examples=4)
    for device in tiny.gpus():
        assert_promised(probe, scored(probe, *few(probe), device))


def labels_are_read(probe: Probe) -> None:
    """Labels that features tell apart score better by the first key than the same labels
    shuffled"""
    if "labels" not in probe.requires:
        return
    train, test = few(probe)
    found = scored(probe, train, test)
    assert test.labels is not None
    order = torch.randperm(len(test), generator=generator(SEED, "shuffle"))
    shuffled = scored(probe, train, replace(test, labels=test.labels[order]))
    key = next(key for key in probe.keys if key in found)
    better = (
        found[key] > shuffled[key] if probe.keys[key] == "higher" else found[key] < shuffled[key]
    )
    assert better, (
        f"{key} is {found[key]:.4g} for features in a cluster per label, and {shuffled[key]:.4g} "
        "shuffled"
    )


@usual.function_of_the_seed
def function_of_the_seed(probe: Probe) -> Iterator[Callable[[Job], dict[str, float]]]:
    """score() gives the same for the same seed, whatever was done before and whatever global
    generators hold"""
    yield lambda job: probe.score(*few(probe), job)


@usual.same_elsewhere
def same_elsewhere(probe: Probe) -> Iterator[Elsewhere]:
    """score() gives the same in another process"""
    yield Elsewhere("scores", scores_of, (probe, fewest(probe)))


@usual.resumes
def resumes(probe: Probe) -> Iterator[Stopped]:
    """A probe that is stopped half-way and continued in the same folder scores the same"""
    yield Stopped("scores", lambda job: probe.score(*few(probe), job))


@usual.inputs_untouched
def inputs_untouched(probe: Probe) -> Iterator[Use]:
    """score() does not write into the features nor into the labels"""
    train, test = few(probe)
    given = {
        "the features of the training images": train.features,
        "the labels of the training images": train.labels,
        "the features of the held-out images": test.features,
        "the labels of the held-out images": test.labels,
    }
    yield Use(lambda: scored(probe, train, test), given)


@usual.order_does_not_matter
def order_does_not_matter(probe: Probe) -> Iterator[Scores]:
    """The order of the held-out images does not change the scores"""
    train, test = few(probe)

    def ask(order: list[int]) -> dict[str, float]:
        labels = None if test.labels is None else test.labels[order]
        return scored(probe, train, replace(test, features=test.features[order], labels=labels))

    yield Scores(len(test), ask)


@usual.odd_inputs
def odd_inputs(probe: Probe) -> Iterator[Odd]:
    """One held-out image, one training image, one class alone and equal features are scored or
    refused in words"""
    for what, train, test in odd(probe):
        yield Odd(what, partial(scored, probe, train, test), partial(assert_promised, probe))


PREREQUISITE = scores_as_promised

CLAUSES: tuple[Clause, ...] = (
    keys_are_words,
    keys_name_what_is_read,
    scores_as_promised,
    labels_are_read,
    function_of_the_seed,
    same_elsewhere,
    resumes,
    inputs_untouched,
    order_does_not_matter,
    odd_inputs,
)


@once
def fewest(probe: Probe) -> int:
    """The smallest number of training images that it scores."""
    return usual.first_taken(
        COUNTS, lambda count: scored(probe, *examples(probe, count)), "training images"
    )


def few(probe: Probe) -> tuple[Examples, Examples]:
    """The smallest training split that it takes, and a held-out one, made anew each time."""
    return examples(probe, fewest(probe))


def examples(
    probe: Probe, train: int, test: int = HELD_OUT, size: int = SIZE
) -> tuple[Examples, Examples]:
    """What a run shows it of images whose labels are a cluster each; no label without need."""
    reader = TinyReader(train, test, size)
    reading = probe.read(reader)
    features: dict[Split, Tensor] = {"train": reading.train, "test": reading.test}

    def part(split: Split) -> Examples:
        labels = reader.labels(split) if "labels" in probe.requires else None
        classes = 0 if labels is None else tiny.CLASSES
        return Examples(features[split], labels, classes, told=reading.told)

    return part("train"), part("test")


@dataclass(frozen=True)
class TinyReader:
    """What a probe can ask for, of images of which nothing is there but the clusters that they
    are in."""

    train: int
    test: int
    size: int

    def part(self, features: Tensor, split: Split) -> Tensor:
        return (features[: self.train] if split == "train" else features[self.train :]).clone()

    def labels(self, split: Split) -> Tensor:
        return self.part(torch.arange(self.train + self.test) % tiny.CLASSES, split)

    def encoded(self, split: Split) -> Tensor:
        return self.part(tiny.features(self.train + self.test, self.size), split)

    def in_noise(
        self, split: Split, look: Callable[[Glance], Tensor], sigma: float, draws: int
    ) -> Tensor:
        return look(TinyGlance(self, split))

    def diffused(self, split: Split) -> Tensor:
        return self.encoded(split)[:, None, None]  # (N, 1, 1, size)

    def classes(self) -> Tensor:
        return self.labels("train")

    def conditional(self) -> Told:
        return exact(self.size)


@dataclass(frozen=True)
class TinyGlance:
    """What a model makes of one split in noise; all its blocks are alike."""

    reader: TinyReader
    split: Split

    def activations(self, blocks: Sequence[str] | None) -> dict[str, Tensor]:
        return dict.fromkeys(blocks or ("mid",), self.tokens)

    def means(self, blocks: Sequence[str] | None) -> Tensor:
        return self.reader.encoded(self.split)

    def positions(self, blocks: Sequence[str] | None) -> Tensor:
        return self.tokens

    def logits(self) -> Tensor:
        count = self.reader.train + self.reader.test
        noise = torch.randn(count, tiny.CLASSES, generator=generator(SEED, "logits"))
        labels = torch.arange(count) % tiny.CLASSES
        return self.reader.part(noise + 6 * torch.eye(tiny.CLASSES)[labels], self.split)

    @property
    def tokens(self) -> Tensor:
        features = tiny.features(self.reader.train + self.reader.test, TOKENS * self.reader.size)
        return self.reader.part(features, self.split).unflatten(1, (TOKENS, self.reader.size))


def exact(size: int) -> Told:
    """A model that knows the clusters of `tiny.features`: E[x0 | x, c] (B, 1, 1, size) of
    Gaussians of variance 1."""
    centres = 4 * torch.randn(tiny.CLASSES, size, generator=generator(0, "features"))

    def denoise(x: Tensor, sigma: float, told: Tensor) -> Tensor:
        return (x + sigma**2 * centres.to(x)[told][:, None, None]) / (1 + sigma**2)

    return Told(denoise, tiny.TinyProcess().sigmas, tiny.CLASSES)


def odd(probe: Probe) -> Iterator[tuple[str, Examples, Examples]]:
    train, test = few(probe)

    def first(data: Examples) -> Examples:
        return replace(
            data,
            features=data.features[:1],
            labels=None if data.labels is None else data.labels[:1],
        )

    yield "one held-out image", train, first(test)
    yield "one training image", first(train), test
    if train.labels is not None:
        yield "one class alone", replace(train, labels=torch.ones_like(train.labels)), test
    yield "equal features", replace(train, features=torch.ones_like(train.features)), test


def scored(probe: Probe, train: Examples, test: Examples, device: str = "cpu") -> dict[str, float]:
    """Its scores, from the same state of the global generators each time; that they do not
    matter is one clause."""
    with ambient(0), tiny.job(SEED, device) as job:
        return probe.score(train, test, job)


def scores_of(probe: Probe, count: int) -> dict[str, float]:
    return scored(probe, *examples(probe, count))


def assert_promised(probe: Probe, found: dict[str, float]) -> None:
    with as_in_a_run():
        checked_probe_scores(probe, found)
