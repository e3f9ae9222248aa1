"""The contract of a guidance mode: `worse` is a pure function of its arguments, at the cost that
it states."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.guided import Guided
from fw.core.errors import FwError
from fw.core.kinds import Guidance
from fw.core.kinds.boundaries import checked_worse
from fw.core.settings import Train
from fw.core.testing import tiny, usual
from fw.core.testing.common import changed, changes
from fw.core.testing.compare import assert_like, gap, largest_difference
from fw.core.testing.forall import forall
from fw.core.testing.usual import Batch, Use

SIGMAS = st.floats(0.02, 10.0)
SHAPES = st.sampled_from([(1, 8, 8), (3, 16, 16)])
COUNTS = st.integers(1, 4)


def right_shape(mode: Guidance) -> None:
    """worse() returns a finite prediction of the shape, dtype and device of the good one"""

    def body(shape: tuple[int, int, int], count: int, sigma: float) -> None:
        for device in tiny.devices():
            model = tiny.denoiser(shape)
            sibling = model_for(mode, model, shape)
            for each in (model, sibling):
                each.network.to(device)
            x, condition = tiny.noisy(count, sigma, shape).to(device), conditions(count).to(device)
            with torch.inference_mode():
                good = model(x, sigma, condition)
                worse = mode.worse(sibling, x, sigma, condition, good)
            with tiny.as_in_a_run():
                checked_worse(mode, worse, good)
            assert_like(worse, good)

    forall(body, shape=SHAPES, count=COUNTS, sigma=SIGMAS)


def scale_one_is_off(mode: Guidance) -> None:
    """At scale 1 it costs nothing and changes no bit"""
    off, model = mode.model_copy(update={"scale": 1.0}), tiny.denoiser()
    x, condition = tiny.noisy(3, 0.5), conditions(3)
    sibling = model_for(mode, model)
    with torch.inference_mode():
        plain = model(x, 0.5, condition)
        model.evaluations = 0
        guided = Guided(model, (off,), condition, *tiny.TinyProcess().sigma_range, (sibling,))(
            x, 0.5
        )
    assert torch.equal(guided, plain), "the prediction changes"
    evaluations = model.evaluations + (0 if sibling is model else sibling.evaluations)
    assert evaluations == 1, f"networks are evaluated {evaluations} times"


def guidance_acts(mode: Guidance) -> None:
    """At another scale it changes the prediction, inside its interval"""
    on = mode.model_copy(update={"scale": 2.0, "interval": None})
    plain, guided = with_and_without(on)
    assert not torch.equal(guided, plain), "worse() is as good as the prediction"


def idle_changes_nothing(mode: Guidance) -> None:
    """Where it says why it is idle, the guided prediction is the plain one"""

    def body(fields: dict[str, Any]) -> None:
        with contextlib.suppress(ValidationError):
            other = changed(mode, fields)
            assert_idle(other.model_copy(update={"scale": 1.0}))
            with contextlib.suppress(FwError, ValueError):  # the tiny network may lack layers
                assert_idle(other.model_copy(update={"scale": 2.0, "interval": None}))

    body({})
    forall(body, fields=changes(type(mode)), examples=25)


def price_is_stated(mode: Guidance) -> None:
    """One call of worse() evaluates the network as often as `evaluations` says"""

    def body(sigma: float) -> None:
        own = tiny.denoiser()
        model = model_for(mode, own)
        x, condition = tiny.noisy(2, sigma), conditions(2)
        with torch.inference_mode():
            good = own(x, sigma, condition)
            model.evaluations = 0
            mode.worse(model, x, sigma, condition, good)
        assert model.evaluations == mode.evaluations, (
            f"{model.evaluations} times, not {mode.evaluations}"
        )

    forall(body, sigma=SIGMAS, examples=5)


@usual.pure
def pure(mode: Guidance) -> Iterator[Use]:
    """worse() gives the same for the same, whatever was called before, and leaves its inputs
    alone"""
    model, x, condition = tiny.denoiser(), tiny.noisy(3, 0.5), conditions(3)
    worse = torch.inference_mode()(mode.worse)
    with torch.inference_mode():
        good = model(x, 0.5, condition)
    yield Use(
        lambda: worse(model, x, 0.5, condition, good),
        {"x": x, "condition": condition, "good": good},
        lambda: worse(
            model, tiny.noisy(2, 3.0, seed=1), 3.0, conditions(2), tiny.noisy(2, 0.1, seed=2)
        ),
    )


def nothing_left_behind(mode: Guidance) -> None:
    """After worse() the network is what it was"""
    model, x, condition = tiny.denoiser(), tiny.noisy(3, 0.5), conditions(3)
    weights = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    with torch.inference_mode():
        before = model(x, 0.5, condition)
        mode.worse(model, x, 0.5, condition, before)
        assert torch.equal(model(x, 0.5, condition), before), "the next prediction is another one"
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, weights[name]), f"it changed the weights {name}"
    hooks = [
        name
        for name, module in model.network.named_modules()
        if module._forward_hooks or module._forward_pre_hooks
    ]
    assert not hooks, f"it left a hook on {hooks}"


@usual.same_in_any_batch
def batch_does_not_matter(mode: Guidance) -> Iterator[Batch]:
    """Each image's result is its own, whatever else is in the batch"""
    model, x, condition = tiny.denoiser(), tiny.noisy(4, 0.5), conditions(4)

    @torch.inference_mode()
    def worse(rows: list[int]) -> Tensor:
        good = model(x, 0.5, condition)
        return mode.worse(model, x[rows], 0.5, condition[rows], good[rows])

    yield Batch(4, worse, differ=largest_difference)


def bad_scales_are_refused(mode: Guidance) -> None:
    """A scale that is negative or not finite, and an interval that is upside down, are refused"""
    for change in (
        {"scale": -1.0},
        {"scale": float("nan")},
        {"scale": float("inf")},
        {"interval": (2.0, 1.0)},
    ):
        with contextlib.suppress(ValidationError):
            type(mode).model_validate({**mode.model_dump(), **change})
            raise AssertionError(f"{change} was taken")


PREREQUISITE = right_shape

CLAUSES = (
    right_shape,
    scale_one_is_off,
    guidance_acts,
    idle_changes_nothing,
    price_is_stated,
    pure,
    nothing_left_behind,
    batch_does_not_matter,
    bad_scales_are_refused,
)


def assert_idle(mode: Guidance) -> None:
    """AssertionError if an idle mode changes the prediction: at scale 1 by a bit, else by more
    than rounding."""
    if reason := mode.idle():
        plain, guided = with_and_without(mode)
        tolerance = 1e-5 if mode.scale != 1 else 0
        assert gap(guided, plain) <= tolerance, f"it changes the prediction, and says {reason!r}"


@torch.inference_mode()
def with_and_without(mode: Guidance) -> tuple[Tensor, Tensor]:
    """The plain and the guided prediction of the tiny denoiser."""
    model, x, condition = tiny.denoiser(), tiny.noisy(3, 0.5), conditions(3)
    siblings = (model_for(mode, model),)
    guided = Guided(model, (mode,), condition, *tiny.TinyProcess().sigma_range, siblings)
    return model(x, 0.5, condition), guided(x, 0.5)


def model_for(
    mode: Guidance, model: NetworkDenoiser, shape: tuple[int, int, int] = tiny.SHAPE
) -> NetworkDenoiser:
    """The denoiser that `worse` gets: the model, or another one if the mode asks for it."""
    return (
        model
        if mode.sibling(tiny.TinyBackbone(), Train()) is None
        else tiny.denoiser(shape, seed=1)
    )


def conditions(count: int) -> Tensor:
    return torch.arange(count) % tiny.CLASSES
