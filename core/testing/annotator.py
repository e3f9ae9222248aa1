"""The contract of an annotator: valid conditions, a function of the job's seed and of what it
declares to look at."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from hypothesis import strategies as st
from torch import Tensor

from fw.core.errors import FwError
from fw.core.job import Job
from fw.core.kinds import Annotator
from fw.core.kinds.boundaries import checked_annotation
from fw.core.randomness import Draws
from fw.core.testing import tiny, usual
from fw.core.testing.compare import same
from fw.core.testing.contract import Clause
from fw.core.testing.digest import digest
from fw.core.testing.forall import forall
from fw.core.testing.global_state import ambient
from fw.core.testing.once import once
from fw.core.testing.tiny import as_in_a_run
from fw.core.testing.usual import Elsewhere, Odd, Use
from fw.core.types import Annotation, ConditionSpec, Observations

COUNTS = (30, 60, 120, 240, 480, 960, 1920)
"""Numbers of images to try it with: it may refuse to make more conditions than there are images."""
SEED = 5

Made = tuple[ConditionSpec, Tensor, Tensor | None]


def valid(annotator: Annotator) -> None:
    """annotate() gives one valid condition per image, on the CPU"""

    def body(more: int, size: int) -> None:
        count = enough(annotator) + more
        with contextlib.suppress(FwError):
            assert_valid(annotator, annotated(annotator, observed(annotator, count, size)), count)

    assert_valid(
        annotator, annotated(annotator, observed(annotator, enough(annotator))), enough(annotator)
    )
    forall(body, more=st.integers(0, 50), size=st.sampled_from([2, 6, 32, 3]), examples=6)
    for device in tiny.gpus():
        data = observed(annotator, enough(annotator))
        assert_valid(annotator, annotated(annotator, data, device), enough(annotator))


@usual.function_of_the_seed
def function_of_the_seed(annotator: Annotator) -> Iterator[Callable[[Job], Made]]:
    """annotate() gives the same for the same seed, whatever was done before and whatever global
    generators hold"""
    data = observed(annotator, enough(annotator))
    yield lambda job: made(annotator.annotate(data, job))


@usual.same_elsewhere
def same_elsewhere(annotator: Annotator) -> Iterator[Elsewhere]:
    """annotate() gives the same in another process"""
    yield Elsewhere("conditions or bank", annotation_digest, (annotator, enough(annotator)))


def sees_what_it_declares(annotator: Annotator) -> None:
    """Labels without uses_labels and features without uses_features change nothing"""
    data = observed(annotator, enough(annotator))
    labels = torch.arange(data.count) % tiny.CLASSES
    undeclared: list[Observations] = []
    if not annotator.uses_labels:
        undeclared += [
            replace(data, labels=each, classes=tiny.CLASSES) for each in (labels, labels.flip(0))
        ]
    if not annotator.uses_features:
        undeclared += [
            replace(data, features=tiny.features(data.count, seed=seed)) for seed in (1, 2)
        ]
    without = made(annotated(annotator, data))
    for more in undeclared:
        what = "labels" if more.labels is not data.labels else "features"
        assert same(made(annotated(annotator, more)), without), (
            f"{what} that it does not declare change the conditions"
        )


@usual.inputs_untouched
def inputs_untouched(annotator: Annotator) -> Iterator[Use]:
    """annotate() does not write into features and labels"""
    data = observed(annotator, enough(annotator))
    yield Use(
        lambda: annotated(annotator, data), {"features": data.features, "labels": data.labels}
    )


@usual.odd_inputs
def odd_inputs(annotator: Annotator) -> Iterator[Odd]:
    """One image, two images and equal images give valid conditions or an FwError"""
    for what, data in {
        "one image": observed(annotator, 1),
        "two images": observed(annotator, 2),
        "equal features": equal(observed(annotator, enough(annotator))),
    }.items():
        valid = partial(assert_valid, annotator, count=data.count)
        yield Odd(what, partial(annotated, annotator, data), valid)


def stored_and_drawn(annotator: Annotator) -> None:
    """What it makes can be stored, read back and drawn from"""
    annotation = annotated(annotator, observed(annotator, enough(annotator)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "annotation.safetensors"
        annotation.save(path)
        again = Annotation.load(path)
    assert same(made(again), made(annotation)), "it is read back as another one"

    def body(count: int, seed: int) -> None:
        drawn = again.draw(Draws(seed, "draw", rows=range(count)))
        assert_valid(annotator, Annotation(again.spec, drawn), count)

    forall(body, count=st.integers(1, 300), seed=st.integers(0, 1000), examples=5)


PREREQUISITE = valid

CLAUSES: tuple[Clause, ...] = (
    valid,
    function_of_the_seed,
    same_elsewhere,
    sees_what_it_declares,
    inputs_untouched,
    odd_inputs,
    stored_and_drawn,
)


@once
def enough(annotator: Annotator) -> int:
    """The smallest number of images that it takes."""
    return usual.first_taken(
        COUNTS, lambda count: annotated(annotator, observed(annotator, count)), "images"
    )


def observed(annotator: Annotator, count: int, size: int = 6) -> Observations:
    """What a run gives it: three clusters of features, and the cluster as the label, each if it
    declares their use."""
    return Observations(
        count,
        tiny.features(count, size) if annotator.uses_features else None,
        torch.arange(count) % tiny.CLASSES if annotator.uses_labels else None,
        tiny.CLASSES if annotator.uses_labels else 0,
    )


def equal(data: Observations) -> Observations:
    return replace(data, features=None if data.features is None else torch.ones_like(data.features))


def annotated(annotator: Annotator, data: Observations, device: str = "cpu") -> Annotation:
    """Its annotation, always from the same state of the global generators; they are checked by
    another clause."""
    with ambient(0), tiny.job(SEED, device) as job:
        return annotator.annotate(data, job)


def assert_valid(annotator: Annotator, annotation: Annotation, count: int) -> None:
    with as_in_a_run():
        checked_annotation(annotator, annotation, count)
    for what, tensor in (("conditions", annotation.conditions), ("bank", annotation.bank)):
        assert tensor is None or tensor.device.type == "cpu", f"its {what} are on {tensor.device}"


def made(annotation: Annotation) -> Made:
    return annotation.spec, annotation.conditions, annotation.bank


def annotation_digest(annotator: Annotator, count: int) -> str:
    annotation = annotated(annotator, observed(annotator, count))
    return f"{annotation.spec} {digest([annotation.conditions, annotation.bank])}"
