"""The contract of a rule: pure functions of predictions, each image for itself, that remember in `memory` alone."""

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
"""Noise levels that a rule is asked at, one after the other."""


class Level(NamedTuple):
    """What a rule is given at one noise level: a good prediction of x0 and a difference, (B, C, H, W) each."""

    good: Tensor
    difference: Tensor


class Heard(NamedTuple):
    """What it said to that."""

    direction: Tensor
    result: Tensor


def says_something(rule: Rule) -> None:
    """It has a direction() or a result() of its own"""
    own = type(rule)
    assert own.direction is not Rule.direction or own.result is not Rule.result, "it has neither"


def right_shape(rule: Rule) -> None:
    """direction() and result() return finite tensors of the shape, dtype and device of the good prediction"""

    def body(shape: tuple[int, int, int], count: int, power: float) -> None:
        for device in tiny.devices():
            levels = [Level(*(each.to(device) for each in level)) for level in given(count, shape, 10**power)]
            for level, heard in zip(levels, asked(rule, levels), strict=True):
                for name, found in heard._asdict().items():
                    with tiny.as_in_a_run():
                        checked_rule(rule, found, level.good)
                    assert_like(found, level.good, f"{name}()")

    shapes = st.sampled_from([tiny.SHAPE, (3, 16, 16), (4, 2, 5)])
    forall(body, shape=shapes, count=st.integers(1, 4), power=st.floats(-4, 3))


def nothing_comes_of_nothing(rule: Rule) -> None:
    """A difference of zero gives the direction zero, and a good prediction as the guided one stays as it is"""
    good, _ = given(3)[0]
    nothing = torch.zeros_like(good)
    for what, prediction in {"usual predictions": good, "predictions of zero": nothing}.items():
        [(direction, result)] = asked(rule, [Level(prediction, nothing)])
        assert torch.equal(direction, nothing), f"{what}: a difference of zero becomes up to {largest(direction):.2g}"
        gap = largest(result - prediction)
        assert gap <= 1e-5, f"{what}: result(good, good) is {gap:.2g} off"


def idle_changes_nothing(rule: Rule) -> None:
    """Where it says why it is idle, no bit of a difference or of a guided prediction changes"""

    def body(fields: dict[str, Any]) -> None:
        with contextlib.suppress(ValidationError):
            other, levels = changed(rule, fields), given(3)
            if reason := other.idle():
                for level, heard in zip(levels, asked(other, levels), strict=True):
                    kept = Heard(level.difference, level.good + level.difference)
                    for name, found, expected in zip(Heard._fields, heard, kept, strict=True):
                        assert torch.equal(found, expected), f"{name}() changes it, and idle() says {reason!r}"

    body({})
    forall(body, fields=changes(type(rule)), examples=25)


@usual.pure
def pure(rule: Rule) -> Iterator[Use]:
    """The same predictions and the same memory give the same, whatever was asked before; inputs are left alone"""
    levels = given(3)

    def call() -> list[Heard]:
        memory: dict[str, Tensor] = {}
        said, copies = [], []
        for level in levels:
            said.append(ask(rule, level, memory))
            copies.append(copied(said[-1]))
        assert same(said, copies), "it writes into what it returned before"
        return said

    yield Use(call, {"what it is given": levels}, lambda: asked(rule, given(2, (3, 16, 16), seed=1)))


def memory_holds_tensors(rule: Rule) -> None:
    """What it knows of earlier noise levels is in `memory`, as tensors by name"""
    levels, memory = given(3), dict[str, Tensor]()
    known, said = [], []
    for level in levels:
        known.append({name: tensor.clone() for name, tensor in memory.items()})
        said.append(copied(ask(rule, level, memory)))
        for name, value in memory.items():
            assert isinstance(name, str), f"{name!r} is not a name"
            assert isinstance(value, Tensor), f"{name} is a {type(value).__name__}"
    known.append(memory)
    for number, level in enumerate(levels):
        again = {name: tensor.clone() for name, tensor in known[number].items()}
        heard = ask(rule, level, again)
        assert same(heard, said[number]), f"at level {number + 1} the same memory gives something else"
        assert same(again, known[number + 1]), f"at level {number + 1} the same memory becomes something else"


@usual.same_in_any_batch
def batch_does_not_matter(rule: Rule) -> Iterator[Batch]:
    """Each image's result is its own, whatever else is in the batch"""
    levels = given(4)

    def heard(rows: list[int]) -> dict[str, Tensor]:
        said = asked(rule, [Level(*(each[rows] for each in level)) for level in levels])
        return {
            f"{name}() at level {number + 1}": values
            for number, answer in enumerate(said)
            for name, values in answer._asdict().items()
        }

    yield Batch(4, heard, differ=largest_difference)


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


def given(count: int, shape: tuple[int, int, int] = tiny.SHAPE, size: float = 0.5, seed: int = 0) -> list[Level]:
    """Predictions of `count` images at falling noise levels, and differences whose values are around `size`."""
    draw = generator(seed, "rule")
    levels = []
    for level in range(LEVELS):
        good = tiny.noisy(count, 0.5 / (1 + level), shape, seed)
        levels.append(Level(good, size * torch.randn(good.shape, generator=draw)))
    return levels


def asked(rule: Rule, levels: list[Level]) -> list[Heard]:
    """What the rule says at each noise level of one batch, beginning with an empty memory."""
    memory: dict[str, Tensor] = {}
    return [ask(rule, level, memory) for level in levels]


def ask(rule: Rule, level: Level, memory: dict[str, Tensor]) -> Heard:
    """As sampling asks; each method gets predictions of its own, so that one's fault is not the other's."""
    with torch.inference_mode():
        direction = rule.direction(level.good, level.difference, memory)
        return Heard(direction, rule.result(level.good, level.good + level.difference))
