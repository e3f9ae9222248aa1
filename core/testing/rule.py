"""The contract of a rule: pure functions of predictions, each image for itself, that remember in `memory` alone."""

from __future__ import annotations

from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from fw.core.kinds import Rule
from fw.core.kinds.boundaries import checked_rule
from fw.core.randomness import generator
from fw.core.testing import tiny
from fw.core.testing.forall import forall
from fw.core.testing.global_state import repeated, same

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
                    kept = (found.dtype, found.device) == (level.good.dtype, level.good.device)
                    assert kept, f"{name}() gives {found.dtype} on {found.device}"
                    wrong = int((~found.isfinite()).sum())
                    assert not wrong, f"{name}() gives {wrong} of {found.numel()} values that are not finite"

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


def pure(rule: Rule) -> None:
    """The same predictions and the same memory give the same, whatever was asked before; inputs are left alone"""
    levels, memory = given(3), dict[str, Tensor]()
    said, copies = [], []
    for level in levels:
        said.append(ask(rule, level, memory))
        copies.append(copied(said[-1]))
    assert same(levels, given(3)), "it writes into what it is given"
    assert same(said, copies), "it writes into what it returned before"

    def call() -> list[Heard]:
        asked(rule, given(2, (3, 16, 16), seed=1))
        return asked(rule, levels)

    assert same(repeated(call), copies), "what was asked before changes the result"


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


def batch_does_not_matter(rule: Rule) -> None:
    """Each image's result is its own, whatever else is in the batch"""
    levels = given(4)
    together = asked(rule, levels)
    for row in range(4):
        alone = asked(rule, [Level(*(each[row : row + 1] for each in level)) for level in levels])
        for here, there in zip(together, alone, strict=True):
            for name, all_of_them, one in zip(Heard._fields, here, there, strict=True):
                gap = largest(all_of_them[row : row + 1] - one)
                assert gap <= 1e-4, f"{name}(): alone and in a batch differ by {gap:.2g}"


PREREQUISITE = right_shape

CLAUSES = (
    says_something,
    right_shape,
    nothing_comes_of_nothing,
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


def copied(heard: Heard) -> Heard:
    return Heard(*(tensor.clone() for tensor in heard))


def largest(values: Tensor) -> float:
    return float(values.abs().max())
