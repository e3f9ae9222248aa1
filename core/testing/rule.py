"""The contract of a rule: pure functions of predictions, each image for itself, that remember in
`memory` alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from fw.core.kinds import Rule
from fw.core.kinds.boundaries import checked_rule
from fw.core.randomness import generator
from fw.core.testing import tiny, usual
from fw.core.testing.common import changed, changes
from fw.core.testing.compare import assert_like, copied, largest, largest_difference, same
from fw.core.testing.forall import forall
from fw.core.testing.usual import Batch, Use

LEVELS = 3
"""The number of noise levels at which a rule is called, one after the other."""


class Level(NamedTuple):
    """The arguments of a rule at one noise level: a good prediction of x0 and a difference, (B,
    C, H, W) each."""

    good: Tensor
    difference: Tensor


class Answer(NamedTuple):
    """What its two methods return for that."""

    direction: Tensor
    result: Tensor


def says_something(rule: Rule) -> None:
    """It has a direction() or a result() of its own"""
    own = type(rule)
    assert own.direction is not Rule.direction or own.result is not Rule.result, "it has neither"


def right_shape(rule: Rule) -> None:
    """direction() and result() return finite tensors of the shape, dtype and device of the good
    prediction"""

    def body(shape: tuple[int, int, int], count: int, power: float) -> None:
        for device in tiny.devices():
            levels = [
                Level(*(each.to(device) for each in level))
                for level in make_levels(count, shape, 10**power)
            ]
            for level, answer in zip(levels, answers(rule, levels), strict=True):
                for name, result in answer._asdict().items():
                    with tiny.as_in_a_run():
                        checked_rule(rule, result, level.good)
                    assert_like(result, level.good, f"{name}()")

    shapes = st.sampled_from([tiny.SHAPE, (3, 16, 16), (4, 2, 5)])
    bounds = [{"shape": tiny.SHAPE, "count": 2, "power": power} for power in (-4.0, 3.0)]
    forall(body, always=bounds, shape=shapes, count=st.integers(1, 4), power=st.floats(-4, 3))


def nothing_comes_of_nothing(rule: Rule) -> None:
    """A difference of zero gives the direction zero, and a good prediction as the guided one
    stays as it is"""
    good, _ = make_levels(3)[0]
    nothing = torch.zeros_like(good)
    for what, prediction in {"usual predictions": good, "predictions of zero": nothing}.items():
        [(direction, result)] = answers(rule, [Level(prediction, nothing)])
        assert torch.equal(direction, nothing), (
            f"{what}: a difference of zero becomes up to {largest(direction):.2g}"
        )
        gap = largest(result - prediction)
        assert gap <= 1e-5, f"{what}: result(good, good) is {gap:.2g} off"


def idle_changes_nothing(rule: Rule) -> None:
    """Where it says why it is idle, no bit of a difference or of a guided prediction changes"""

    def body(fields: dict[str, Any]) -> None:
        with contextlib.suppress(ValidationError):
            other, levels = changed(rule, fields), make_levels(3)
            if reason := other.idle():
                for level, answer in zip(levels, answers(other, levels), strict=True):
                    kept = Answer(level.difference, level.good + level.difference)
                    for name, result, expected in zip(Answer._fields, answer, kept, strict=True):
                        assert torch.equal(result, expected), (
                            f"{name}() changes it, and idle() says {reason!r}"
                        )

    body({})
    forall(body, fields=changes(type(rule)), examples=25)


@usual.pure
def pure(rule: Rule) -> Iterator[Use]:
    """The same predictions and the same memory give the same, whatever was called before; inputs
    are left alone"""
    levels = make_levels(3)

    def call() -> list[Answer]:
        memory: dict[str, Tensor] = {}
        returned, copies = [], []
        for level in levels:
            returned.append(apply(rule, level, memory))
            copies.append(copied(returned[-1]))
        assert same(returned, copies), "it writes into what it returned before"
        return returned

    yield Use(
        call,
        {"what it is given": levels},
        lambda: answers(rule, make_levels(2, (3, 16, 16), seed=1)),
    )


def memory_holds_tensors(rule: Rule) -> None:
    """What it knows of earlier noise levels is in `memory`, as tensors by name"""
    levels, memory = make_levels(3), dict[str, Tensor]()
    known, first = [], []
    for level in levels:
        known.append({name: tensor.clone() for name, tensor in memory.items()})
        first.append(copied(apply(rule, level, memory)))
        for name, value in memory.items():
            assert isinstance(name, str), f"{name!r} is not a name"
            assert isinstance(value, Tensor), f"{name} is a {type(value).__name__}"
    known.append(memory)
    for number, level in enumerate(levels):
        again = {name: tensor.clone() for name, tensor in known[number].items()}
        second = apply(rule, level, again)
        assert same(second, first[number]), (
            f"at level {number + 1} the same memory gives something else"
        )
        assert same(again, known[number + 1]), (
            f"at level {number + 1} the same memory becomes something else"
        )


@usual.same_in_any_batch
def batch_does_not_matter(rule: Rule) -> Iterator[Batch]:
    """Each image's result is its own, whatever else is in the batch"""
    levels = make_levels(4)

    def compute(rows: list[int]) -> dict[str, Tensor]:
        batch = [Level(*(each[rows] for each in level)) for level in levels]
        return {
            f"{name}() at level {number + 1}": values
            for number, answer in enumerate(answers(rule, batch))
            for name, values in answer._asdict().items()
        }

    yield Batch(4, compute, differ=largest_difference)


PREREQUISITE = right_shape

CLAUSES = (
    says_something,
    right_shape,
    nothing_comes_of_nothing,
    idle_changes_nothing,
    pure,
    memory_holds_tensors,
    batch_does_not_matter,
)


def make_levels(
    count: int, shape: tuple[int, int, int] = tiny.SHAPE, size: float = 0.5, seed: int = 0
) -> list[Level]:
    """Predictions of `count` images at falling noise levels, and differences whose values are
    around `size`."""
    draw = generator(seed, "rule")
    levels = []
    for level in range(LEVELS):
        good = tiny.noisy(count, 0.5 / (1 + level), shape, seed)
        levels.append(Level(good, size * torch.randn(good.shape, generator=draw)))
    return levels


def answers(rule: Rule, levels: list[Level]) -> list[Answer]:
    """What the rule returns at each noise level of one batch, beginning with an empty memory."""
    memory: dict[str, Tensor] = {}
    return [apply(rule, level, memory) for level in levels]


def apply(rule: Rule, level: Level, memory: dict[str, Tensor]) -> Answer:
    """Call both methods as sampling does. Each gets its own predictions, so faults of one do not
    affect the other."""
    with torch.inference_mode():
        direction = rule.direction(level.good, level.difference, memory)
        return Answer(direction, rule.result(level.good, level.good + level.difference))
