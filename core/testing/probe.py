"""The contract of a probe: the promised scores, from what it is shown alone, better where there is more to read."""

from __future__ import annotations

import contextlib
import math
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from fw.core.errors import FwError, Interrupted
from fw.core.job import Job
from fw.core.kinds import Probe
from fw.core.kinds.boundaries import checked_found
from fw.core.randomness import generator
from fw.core.testing import tiny
from fw.core.testing.contract import Clause
from fw.core.testing.elsewhere import elsewhere
from fw.core.testing.forall import forall
from fw.core.testing.global_state import ambient, repeated, same
from fw.core.testing.once import once
from fw.core.testing.stopping import Stop
from fw.core.testing.tiny import as_in_a_run
from fw.core.types import Examples, Told
from fw.registry.errors import in_one_line

COUNTS = (30, 120, 480, 1920)
"""Numbers of training images to try it on: it may refuse too few."""
HELD_OUT = 30
SIZE, TOKENS = 6, 4
SEED = 5
ROUNDING = {"rel_tol": 1e-3, "abs_tol": 1e-6}
OTHERS: tuple[dict[str, Any], ...] = (
    {"of": "encoder", "blocks": None},
    {"of": "model", "blocks": None},
    {"of": "model", "blocks": ("mid",)},
    {"of": "model", "sigma": 0.123},
    {"of": "model", "draws": 17},
)
"""Other things to read, as far as the probe can: each gives numbers that cannot be compared."""


def keys_are_words(probe: Probe) -> None:
    """Its keys are words, the same on every call, each with `lower` or `higher`"""
    keys = dict(probe.keys)
    assert keys, "there are none"
    for key, better in keys.items():
        assert re.fullmatch(r"[\w.-]+", str(key)), f"{key!r} is not a word"
        assert better in ("lower", "higher"), f"{key} is better {better!r}"
    assert dict(probe.keys) == keys, f"{', '.join(probe.keys)} the next time"
    assert elsewhere(named, probe) == list(keys.items()), "they are other ones, or in another order, elsewhere"


def keys_name_what_is_read(probe: Probe) -> None:
    """Probes of something else, of other blocks, at another noise level or of more draws have other keys"""
    found: dict[str, Probe] = {}
    given = {name: getattr(probe, name) for name in type(probe).model_fields}
    for changes in ({}, *OTHERS):
        with contextlib.suppress(ValidationError):
            other = type(probe).model_validate({**given, **changes})
            for key in other.keys:
                assert found.setdefault(key, other) == other, f"{key} is also that of {changes}: end it with `protocol`"


def scores_as_promised(probe: Probe) -> None:
    """score() gives finite numbers for at least one of its keys and for no other, for splits of any size"""
    least = fewest(probe)

    def body(more: int, held_out: int, size: int) -> None:
        with contextlib.suppress(FwError):
            found = scored(probe, *examples(probe, least + more, held_out, size))
            with as_in_a_run():
                checked_found(probe, found)

    with as_in_a_run():
        checked_found(probe, scored(probe, *few(probe)))
    sizes = st.sampled_from([SIZE, 2, 24])
    forall(body, more=st.integers(0, 40), held_out=st.integers(2, 40), size=sizes, examples=4)


def labels_are_read(probe: Probe) -> None:
    """Labels that features tell apart score better by the first key than the same labels shuffled"""
    if "labels" not in probe.requires:
        return
    train, test = few(probe)
    found = scored(probe, train, test)
    assert test.labels is not None
    order = torch.randperm(len(test), generator=generator(SEED, "shuffle"))
    shuffled = scored(probe, train, replace(test, labels=test.labels[order]))
    key = next(key for key in probe.keys if key in found)
    better = found[key] > shuffled[key] if probe.keys[key] == "higher" else found[key] < shuffled[key]
    assert better, f"{key} is {found[key]:.4g} for features in a cluster per label, and {shuffled[key]:.4g} shuffled"


def function_of_the_seed(probe: Probe) -> None:
    """score() gives the same for the same seed, whatever was done before and whatever global generators hold"""

    def call() -> dict[str, str]:
        with tiny.job(SEED) as job:
            return {key: repr(value) for key, value in probe.score(*few(probe), job).items()}

    repeated(call)


def same_elsewhere(probe: Probe) -> None:
    """score() gives the same in another process"""
    threads = torch.get_num_threads()
    count = fewest(probe)
    assert elsewhere(scores_of, probe, count, threads) == scores_of(probe, count, threads), "it scores otherwise there"


def resumes(probe: Probe) -> None:
    """A probe that is stopped half-way and continued in the same folder scores the same"""
    with ambient(0), tempfile.TemporaryDirectory() as folder:
        asked = Stop()
        whole = probe.score(*few(probe), Job(Path(folder), seed=SEED, stopping=asked))
    if not asked.times:
        return
    with ambient(0), tempfile.TemporaryDirectory() as folder:
        with contextlib.suppress(Interrupted):
            probe.score(*few(probe), Job(Path(folder), seed=SEED, stopping=Stop(at=asked.times // 2 + 1)))
            raise AssertionError("it goes on when job.steps or job.track stops it: let Interrupted out")
        continued = probe.score(*few(probe), Job(Path(folder), seed=SEED))
    assert continued == whole, f"{continued} after a stop, and {whole} without"


def inputs_untouched(probe: Probe) -> None:
    """score() does not write into the features nor into the labels"""
    given, kept = few(probe), few(probe)
    scored(probe, *given)
    for split, after, before in zip(("training", "held-out"), given, kept, strict=True):
        assert same(after.features, before.features), f"it writes into the features of the {split} images"
        assert same(after.labels, before.labels), f"it writes into the labels of the {split} images"


def order_does_not_matter(probe: Probe) -> None:
    """The order of the held-out images does not change the scores"""
    train, test = few(probe)
    found = scored(probe, train, test)

    def body(order: list[int]) -> None:
        labels = None if test.labels is None else test.labels[order]
        for key, value in scored(probe, train, replace(test, features=test.features[order], labels=labels)).items():
            close = math.isclose(value, found[key], **ROUNDING)
            assert close, f"{key} is {found[key]:.6g} in one order and {value:.6g} in another"

    forall(body, order=st.permutations(range(len(test))), examples=3)


def odd_inputs(probe: Probe) -> None:
    """One held-out image, one training image, one class alone and equal features are scored or refused in words"""
    for what, train, test in odd(probe):
        try:
            found = scored(probe, train, test)
        except FwError:
            continue
        except Exception as error:
            raise AssertionError(f"{what}: it raised {in_one_line(error)}") from error
        try:
            with as_in_a_run():
                checked_found(probe, found)
        except AssertionError as error:
            raise AssertionError(f"{what}: {error}") from error


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
    refused = ""
    for count in COUNTS:
        try:
            scored(probe, *examples(probe, count))
            return count
        except FwError as error:
            refused = str(error)
    raise AssertionError(f"it refuses {COUNTS[0]} to {COUNTS[-1]} training images: {refused}")


def few(probe: Probe) -> tuple[Examples, Examples]:
    """The smallest training split that it takes, and a held-out one, made anew each time."""
    return examples(probe, fewest(probe))


def examples(probe: Probe, train: int, test: int = HELD_OUT, size: int = SIZE) -> tuple[Examples, Examples]:
    """What a run shows it of images whose labels are a cluster each; no label without need."""
    count = train + test
    told = None
    if probe.reads == "tokens":
        features = tiny.features(count, TOKENS * size).unflatten(1, (TOKENS, size))
    elif probe.reads == "logits":
        noise = torch.randn(count, tiny.CLASSES, generator=generator(SEED, "logits"))
        features = noise + 6 * torch.eye(tiny.CLASSES)[torch.arange(count) % tiny.CLASSES]
    elif probe.reads == "errors":
        features, told = tiny.features(count, size)[:, None, None], exact(size)  # images (N, 1, 1, size)
    else:
        features = tiny.features(count, size)
    labels = torch.arange(count) % tiny.CLASSES if "labels" in probe.requires else None
    classes = 0 if labels is None else tiny.CLASSES

    def part(rows: slice) -> Examples:
        shown = None if labels is None else labels[rows].clone()
        return Examples(features[rows].clone(), shown, classes, told=told)

    first, held_out = part(slice(train)), part(slice(train, None))
    if told is not None:
        first = replace(first, features=torch.arange(train) % tiny.CLASSES)
    return first, held_out


def exact(size: int) -> Told:
    """A model that knows the clusters of `tiny.features`: E[x0 | x, c] (B, 1, 1, size) of Gaussians of variance 1."""
    centres = 4 * torch.randn(tiny.CLASSES, size, generator=generator(0, "features"))

    def denoise(x: Tensor, sigma: float, told: Tensor) -> Tensor:
        return (x + sigma**2 * centres.to(x)[told][:, None, None]) / (1 + sigma**2)

    return Told(denoise, tiny.TinyProcess().sigmas, tiny.CLASSES)


def odd(probe: Probe) -> Iterator[tuple[str, Examples, Examples]]:
    train, test = few(probe)

    def first(data: Examples) -> Examples:
        return replace(data, features=data.features[:1], labels=None if data.labels is None else data.labels[:1])

    yield "one held-out image", train, first(test)
    yield "one training image", first(train), test
    if train.labels is not None:
        yield "one class alone", replace(train, labels=torch.ones_like(train.labels)), test
    yield "equal features", replace(train, features=torch.ones_like(train.features)), test


def scored(probe: Probe, train: Examples, test: Examples) -> dict[str, float]:
    """Its scores, from the same state of the global generators each time; that they do not matter is one clause."""
    with ambient(0), tiny.job(SEED) as job:
        return probe.score(train, test, job)


def scores_of(probe: Probe, count: int, threads: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    return scored(probe, *examples(probe, count))


def named(probe: Probe) -> list[tuple[str, str]]:
    return list(probe.keys.items())
