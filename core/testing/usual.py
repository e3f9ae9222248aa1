"""Clauses that many contracts have, made from what differs.

The docstring of the decorated function is the sentence; what it yields is held to it.

    @usual.pure
    def pure(process: Process) -> Iterator[Use]:
        \"\"\"It gives the same for the same, and leaves its inputs alone\"\"\"
        yield Use(lambda: process.weight(sigma), {"the noise levels": sigma})
"""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from hypothesis import strategies as st
from torch import Tensor

from fw.core.errors import FwError
from fw.core.job import Job
from fw.core.testing import tiny
from fw.core.testing.compare import copied, gap, same
from fw.core.testing.contract import Clause
from fw.core.testing.elsewhere import elsewhere
from fw.core.testing.forall import forall
from fw.core.testing.global_state import ambient, repeated
from fw.core.testing.stopping import Stop, resumed
from fw.registry.errors import in_one_line

Case = TypeVar("Case")


def usual(held: Callable[[Case], None]) -> Callable[[Callable[[Any], Iterable[Case]]], Clause]:
    """Make `held`, which checks one case, a decorator that turns a function which yields cases
    into a clause."""

    def decorate(cases: Callable[[Any], Iterable[Case]]) -> Clause:
        @functools.wraps(cases)
        def clause(component: Any) -> None:
            for case in cases(component):
                held(case)

        return clause

    return decorate


class Use(NamedTuple):
    """A use of a component, and what it may neither depend on nor change."""

    call: Callable[[], Any]
    inputs: Mapping[str, Any] = {}
    """Its inputs by name: tensors, or functions that return them."""
    before: Callable[[], object] = lambda: None
    """Another use, which must not change the result."""
    user: str = "it"
    """What to call the component's function in a message."""


@usual
def inputs_untouched(use: Use) -> None:
    """It leaves its inputs alone."""
    left_alone(use)


@usual
def pure(use: Use) -> None:
    """It leaves its inputs alone, and depends neither on earlier uses nor on global state."""
    first = left_alone(use)
    again = repeated(lambda: (use.before(), use.call())[1])
    assert same(again, first), "an earlier call changes the result"


def left_alone(use: Use) -> Any:
    """Its result; AssertionError if it changes its inputs."""
    kept = copied(read(use.inputs))
    result = copied(use.call())
    for name, value in read(use.inputs).items():
        assert same(value, kept[name]), f"{use.user} writes into {name}"
    return result


def read(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value() if callable(value) else value for name, value in inputs.items()}


@usual
def repeatable(call: Callable[[], Any]) -> None:
    """It gives the same again, and neither moves nor reads global generators."""
    repeated(call)


SEED = 5
"""That of the jobs in which things are made."""


@usual
def function_of_the_seed(call: Callable[[Job], Any]) -> None:
    """In a job of the same seed it gives the same, and neither moves nor reads global
    generators."""

    def in_a_job() -> Any:
        with tiny.job(SEED) as job:
            return call(job)

    repeated(in_a_job)


class Batch(NamedTuple):
    """A computation on some of the images, chosen by number, that gives tensors with a row for
    each."""

    images: int
    compute: Callable[[list[int]], Tensor | dict[str, Tensor]]
    tolerance: float = 1e-4
    differ: Callable[[Tensor, Tensor], float] = gap


@usual
def same_in_any_batch(batch: Batch) -> None:
    """Each image's row is its own: alone, with others, and in any order."""
    together = by_name(batch.compute([*range(batch.images)]))

    def body(rows: list[int]) -> None:
        for name, values in by_name(batch.compute(rows)).items():
            share = batch.differ(values, together[name][rows])
            assert share <= batch.tolerance, (
                f"{name}images {rows} of {batch.images} differ by {share:.2g} without the others"
            )

    for row in range(batch.images):
        body([row])
    forall(
        body, rows=st.lists(st.integers(0, batch.images - 1), unique=True, min_size=1), examples=6
    )


def by_name(values: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    if isinstance(values, Tensor):
        return {"": values}
    return {f"{name} of ": each for name, each in values.items()}


class Scores(NamedTuple):
    """A computation of scores from images in a given order."""

    images: int
    compute: Callable[[list[int]], Mapping[str, float]]


@usual
def order_does_not_matter(scores: Scores) -> None:
    """They are the same in any order, but for rounding."""
    usually = scores.compute([*range(scores.images)])

    def body(order: list[int]) -> None:
        for key, value in scores.compute(order).items():
            close = math.isclose(value, usually[key], rel_tol=1e-3, abs_tol=1e-6)
            assert close or (math.isnan(value) and math.isnan(usually[key])), (
                f"{key} is {usually[key]:.6g} in one order and {value:.6g} in another"
            )

    forall(body, order=st.permutations(range(scores.images)), examples=4)


class Elsewhere(NamedTuple):
    """A module's function, and what to call its result."""

    what: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


@usual
def same_elsewhere(case: Elsewhere) -> None:
    """Another process returns the same."""
    there = elsewhere(in_threads, torch.get_num_threads(), case.function, *case.arguments)
    assert there == case.function(*case.arguments), f"{case.what} are other ones"


def in_threads(threads: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """With as many threads as here, because the sums of floats depend on it."""
    torch.set_num_threads(threads)
    return function(*arguments)


class Stopped(NamedTuple):
    """Work in a job, and what to call its result."""

    what: str
    call: Callable[[Job], Any]


@usual
def resumes(case: Stopped) -> None:
    """Stopped half-way and continued in the same folder, it comes to the same end."""
    requests = Stop()
    with ambient(0), tempfile.TemporaryDirectory() as folder:
        whole = case.call(Job(Path(folder), seed=SEED, stopping=requests))
    if requests.times:
        assert same(resumed(case.call, SEED, requests.times), whole), f"{case.what} are other ones"


class Odd(NamedTuple):
    """What to call odd inputs, what is made of them, and what raises AssertionError unless that
    is valid."""

    what: str
    make: Callable[[], Any]
    assert_valid: Callable[[Any], None]


@usual
def odd_inputs(odd: Odd) -> None:
    """What is made of them is valid, or it is refused with an FwError."""
    try:
        made = odd.make()
    except FwError:
        return
    except Exception as error:
        raise AssertionError(f"{odd.what}: it raised {in_one_line(error)}") from error
    try:
        odd.assert_valid(made)
    except AssertionError as error:
        raise AssertionError(f"{odd.what}: {error}") from error


class OnDevice(NamedTuple):
    """A computation on a device."""

    compute: Callable[[str], Tensor | dict[str, Tensor]]
    tolerance: float = 0.02
    differ: Callable[[Tensor, Tensor], float] = gap


@usual
def same_on_a_gpu(made: OnDevice) -> None:
    """Its results are on the device, and are those of the CPU."""
    expected = by_name(made.compute("cpu"))
    for device in tiny.devices():
        for name, values in by_name(made.compute(device)).items():
            assert values.device.type == device, f"{name}images on {device} are on {values.device}"
            share = made.differ(values.cpu(), expected[name])
            assert share <= made.tolerance, f"{name}images differ by {share:.2g}"


def if_provided(capability: str) -> Callable[[Clause], Clause]:
    """The clause is for components that provide the capability."""

    def decorate(whole: Clause) -> Clause:
        @functools.wraps(whole)
        def clause(component: Any) -> None:
            if capability in component.provides:
                whole(component)

        return clause

    return decorate


def assert_numbers(values: Mapping[str, Any], place: str = "") -> None:
    """AssertionError unless they are finite numbers by name."""
    for name, value in values.items():
        assert isinstance(name, str), f"{place}{name!r} is not a name"
        assert isinstance(value, float | int), f"{place}{name!r} is a {type(value).__name__}"
        assert math.isfinite(value), f"{place}{name!r} is {value}"


def first_taken(
    candidates: Sequence[Case],
    attempt: Callable[[Case], object],
    what: str,
    refusal: type[Exception] = FwError,
) -> Case:
    """The first that is not refused."""
    refused = ""
    for candidate in candidates:
        try:
            attempt(candidate)
            return candidate
        except refusal as error:
            refused = str(error)
    raise AssertionError(f"it refuses all of {', '.join(map(str, candidates))} {what}: {refused}")
