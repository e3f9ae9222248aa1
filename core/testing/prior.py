"""The contract of a prior: valid conditions of every form that it says it draws, a function of
the job's seed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import get_args, get_type_hints

import torch
from hypothesis import strategies as st
from torch import Tensor

from fw.core.errors import FwError
from fw.core.job import Job
from fw.core.kinds import Prior
from fw.core.kinds.boundaries import checked_conditions
from fw.core.testing import tiny, usual
from fw.core.testing.contract import Clause
from fw.core.testing.digest import digest
from fw.core.testing.forall import forall
from fw.core.testing.global_state import ambient
from fw.core.testing.once import once
from fw.core.testing.tiny import as_in_a_run
from fw.core.testing.usual import Elsewhere, Odd, Stopped, Use
from fw.core.types import Annotation, ConditionSpec

FORMS = frozenset(get_args(get_type_hints(ConditionSpec)["form"]))
COUNTS = (30, 120, 480, 1920)
"""Numbers of conditions to try it with: it may refuse to learn from few."""
CLASSES = 5
"""Classes of conditions; two of them occur."""
SIZE, TOKENS = 6, 3
SEED = 5


def known_forms(prior: Prior) -> None:
    """It names in `forms` which forms of condition it draws, at least one"""
    assert isinstance(prior.forms, frozenset), f"{prior.forms!r} is not a frozenset"
    assert prior.forms, "it is empty"
    assert prior.forms <= FORMS, f"{', '.join(sorted(map(str, prior.forms - FORMS)))} is none"


def valid(prior: Prior) -> None:
    """bank() gives valid conditions, at least one, on the CPU, for every form that it draws"""

    def body(more: int, size: int, banked: bool) -> None:
        for form in sorted(prior.forms):
            annotation = example(form, enough(prior) + more, size)
            annotation = (
                replace(annotation, bank=annotation.conditions[::2].clone())
                if banked
                else annotation
            )
            with contextlib.suppress(FwError):
                assert_valid(prior, annotation, drawn(prior, annotation))

    for annotation in examples(prior):
        for device in tiny.devices():
            assert_valid(prior, annotation, drawn(prior, annotation, device))
    forall(
        body,
        more=st.integers(0, 50),
        size=st.sampled_from([SIZE, 2, 32, 3]),
        banked=st.booleans(),
        examples=4,
    )


@usual.function_of_the_seed
def function_of_the_seed(prior: Prior) -> Iterator[Callable[[Job], Tensor]]:
    """bank() gives the same for the same seed, whatever was done before and whatever global
    generators hold"""
    for annotation in examples(prior):
        yield partial(prior.bank, annotation)


@usual.same_elsewhere
def same_elsewhere(prior: Prior) -> Iterator[Elsewhere]:
    """bank() gives the same in another process"""
    for form in sorted(prior.forms):
        yield Elsewhere(f"{form} conditions", bank_digest, (prior, form, enough(prior)))


@usual.resumes
def resumes(prior: Prior) -> Iterator[Stopped]:
    """A bank that is stopped half-way and continued in the same folder is the same"""
    for annotation in examples(prior):
        yield Stopped(f"{annotation.spec.form} conditions", partial(prior.bank, annotation))


@usual.inputs_untouched
def inputs_untouched(prior: Prior) -> Iterator[Use]:
    """bank() and quality() do not write into the annotation, nor quality() into the bank"""
    for annotation, fresh in zip(examples(prior), examples(prior), strict=True):
        inputs = {"the conditions": annotation.conditions}
        yield Use(partial(drawn, prior, annotation), inputs, user="bank")
        bank = drawn(prior, fresh)
        yield Use(
            partial(prior.quality, bank, annotation), {**inputs, "the bank": bank}, user="quality"
        )


@usual.odd_inputs
def odd_inputs(prior: Prior) -> Iterator[Odd]:
    """One condition, two conditions and equal conditions give a valid bank or an FwError"""
    for what, annotation in odd(prior):
        yield Odd(what, partial(drawn, prior, annotation), partial(assert_valid, prior, annotation))


def quality_is_numbers(prior: Prior) -> None:
    """quality() gives finite numbers by name, for one condition, two conditions and equal
    conditions too"""
    usual_ones = [
        (f"{annotation.spec.form} conditions", annotation) for annotation in examples(prior)
    ]
    for what, annotation in [*usual_ones, *odd(prior)]:
        with contextlib.suppress(FwError):
            usual.assert_numbers(prior.quality(drawn(prior, annotation), annotation), f"{what}: ")


PREREQUISITE = valid

CLAUSES: tuple[Clause, ...] = (
    known_forms,
    valid,
    function_of_the_seed,
    same_elsewhere,
    resumes,
    inputs_untouched,
    odd_inputs,
    quality_is_numbers,
)


@once
def enough(prior: Prior) -> int:
    """The smallest number of conditions that it takes, of all its forms."""

    def attempt(count: int) -> None:
        for form in sorted(prior.forms):
            drawn(prior, example(form, count))

    return usual.first_taken(COUNTS, attempt, "conditions")


def examples(prior: Prior) -> list[Annotation]:
    """Conditions of every form that it draws, made anew each time."""
    return [example(form, enough(prior)) for form in sorted(prior.forms)]


def example(form: str, count: int, size: int = SIZE) -> Annotation:
    """Conditions as in a run: classes of which some do not occur, or clusters of vectors."""
    if form == "class":
        return Annotation(ConditionSpec("class", CLASSES), 2 * (torch.arange(count) % 3 // 2) + 1)
    if form == "vector":
        return Annotation(ConditionSpec("vector", size), tiny.features(count, size))
    tokens = tiny.features(count, TOKENS * size).unflatten(1, (TOKENS, size))
    return Annotation(ConditionSpec("tokens", size, TOKENS), tokens)


def odd(prior: Prior) -> Iterator[tuple[str, Annotation]]:
    for form in sorted(prior.forms):
        yield f"one {form} condition", example(form, 1)
        yield f"two {form} conditions", example(form, 2)
        usual = example(form, enough(prior))
        yield (
            f"equal {form} conditions",
            replace(usual, conditions=torch.ones_like(usual.conditions)),
        )


def drawn(prior: Prior, annotation: Annotation, device: str = "cpu") -> Tensor:
    """Its bank, always from the same state of the global generators; they are checked by another
    clause."""
    with ambient(0), tiny.job(SEED, device) as job:
        return prior.bank(annotation, job)


def assert_valid(prior: Prior, annotation: Annotation, bank: Tensor) -> None:
    with as_in_a_run():
        checked_conditions(prior, annotation.spec, bank, "bank")
    assert bank.device.type == "cpu", f"its bank is on {bank.device}"


def bank_digest(prior: Prior, form: str, count: int) -> str:
    return digest([drawn(prior, example(form, count))])
