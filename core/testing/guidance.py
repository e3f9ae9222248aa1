"""The contract of a guidance mode: `worse` is a pure function of what it is given, at the price that it states."""

from __future__ import annotations

import contextlib

import torch
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from fw.core.diffusion.denoiser import Denoiser
from fw.core.diffusion.guided import Guided
from fw.core.kinds import Guidance
from fw.core.kinds.boundaries import checked_worse
from fw.core.settings import Train
from fw.core.testing import tiny
from fw.core.testing.forall import forall
from fw.core.testing.global_state import repeated

SIGMAS = st.floats(0.02, 10.0)
SHAPES = st.sampled_from([(1, 8, 8), (3, 16, 16)])
COUNTS = st.integers(1, 4)


def right_shape(mode: Guidance) -> None:
    """worse() returns a finite prediction of the shape, dtype and device of the good one"""

    def body(shape: tuple[int, int, int], count: int, sigma: float) -> None:
        good, worse = predictions(mode, shape, count, sigma)
        with tiny.as_in_a_run():
            checked_worse(mode, worse, good)
        assert (worse.dtype, worse.device) == (good.dtype, good.device), f"{worse.dtype} on {worse.device}"
        assert worse.isfinite().all(), f"{int((~worse.isfinite()).sum())} of {worse.numel()} values are not finite"

    forall(body, shape=SHAPES, count=COUNTS, sigma=SIGMAS)


def scale_one_is_off(mode: Guidance) -> None:
    """At scale 1 it costs nothing and changes no bit"""
    off, model = mode.model_copy(update={"scale": 1.0}), tiny.denoiser()
    x, condition = tiny.noisy(3, 0.5), conditions(3)
    sibling = asked(mode, model)
    with torch.inference_mode():
        plain = model(x, 0.5, condition)
        model.evaluations = 0
        guided = Guided(model, (off,), condition, *tiny.TinyProcess().sigma_range, (sibling,))(x, 0.5)
    assert torch.equal(guided, plain), "the prediction changes"
    evaluations = model.evaluations + (0 if sibling is model else sibling.evaluations)
    assert evaluations == 1, f"networks are evaluated {evaluations} times"


def guidance_acts(mode: Guidance) -> None:
    """At another scale it changes the prediction, inside its interval"""
    on = mode.model_copy(update={"scale": 2.0, "interval": None})
    model, x, condition = tiny.denoiser(), tiny.noisy(3, 0.5), conditions(3)
    with torch.inference_mode():
        guided = Guided(model, (on,), condition, *tiny.TinyProcess().sigma_range, (asked(mode, model),))(x, 0.5)
        assert not torch.equal(guided, model(x, 0.5, condition)), "worse() is as good as the prediction"


def price_is_stated(mode: Guidance) -> None:
    """One call of worse() evaluates the network as often as `evaluations` says"""

    def body(sigma: float) -> None:
        own = tiny.denoiser()
        model = asked(mode, own)
        x, condition = tiny.noisy(2, sigma), conditions(2)
        with torch.inference_mode():
            good = own(x, sigma, condition)
            model.evaluations = 0
            mode.worse(model, x, sigma, condition, good)
        assert model.evaluations == mode.evaluations, f"{model.evaluations} times, not {mode.evaluations}"

    forall(body, sigma=SIGMAS, examples=5)


def pure(mode: Guidance) -> None:
    """worse() gives the same for the same, whatever it was asked before, and leaves its inputs alone"""
    model, x, condition = tiny.denoiser(), tiny.noisy(3, 0.5), conditions(3)
    with torch.inference_mode():
        good = model(x, 0.5, condition)
        given = [x.clone(), condition.clone(), good.clone()]

        def call() -> Tensor:
            mode.worse(model, tiny.noisy(2, 3.0, seed=1), 3.0, conditions(2), tiny.noisy(2, 0.1, seed=2))
            return mode.worse(model, x, 0.5, condition, good)

        first = mode.worse(model, x, 0.5, condition, good)
        assert torch.equal(repeated(call), first), "an earlier call changes the result"
        for name, before, after in zip(("x", "condition", "good"), given, (x, condition, good), strict=True):
            assert torch.equal(before, after), f"it writes into {name}"


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
        name for name, module in model.network.named_modules() if module._forward_hooks or module._forward_pre_hooks
    ]
    assert not hooks, f"it left a hook on {hooks}"


def batch_does_not_matter(mode: Guidance) -> None:
    """Each image's result is its own, whatever else is in the batch"""
    model, x, condition = tiny.denoiser(), tiny.noisy(4, 0.5), conditions(4)
    with torch.inference_mode():
        good = model(x, 0.5, condition)
        together = mode.worse(model, x, 0.5, condition, good)
        alone = [mode.worse(model, x[i : i + 1], 0.5, condition[i : i + 1], good[i : i + 1]) for i in range(4)]
    gap = float((together - torch.cat(alone)).abs().max())
    assert gap < 1e-4, f"alone and in a batch differ by {gap:.2g}"


def bad_scales_are_refused(mode: Guidance) -> None:
    """A scale that is negative or not finite, and an interval that is upside down, are refused"""
    for change in ({"scale": -1.0}, {"scale": float("nan")}, {"scale": float("inf")}, {"interval": (2.0, 1.0)}):
        with contextlib.suppress(ValidationError):
            type(mode).model_validate({**mode.model_dump(), **change})
            raise AssertionError(f"{change} was taken")


PREREQUISITE = right_shape

CLAUSES = (
    right_shape,
    scale_one_is_off,
    guidance_acts,
    price_is_stated,
    pure,
    nothing_left_behind,
    batch_does_not_matter,
    bad_scales_are_refused,
)


def asked(mode: Guidance, model: Denoiser, shape: tuple[int, int, int] = tiny.SHAPE) -> Denoiser:
    """What `worse` is given: the model, or another network if the mode asks for one."""
    return model if mode.sibling(tiny.TinyBackbone(), Train()) is None else tiny.denoiser(shape, seed=1)


def conditions(count: int) -> Tensor:
    return torch.arange(count) % tiny.CLASSES


def predictions(mode: Guidance, shape: tuple[int, int, int], count: int, sigma: float) -> tuple[Tensor, Tensor]:
    """The good and the worse prediction of a tiny denoiser, as sampling asks for them."""
    model, x, condition = tiny.denoiser(shape), tiny.noisy(count, sigma, shape), conditions(count)
    with torch.inference_mode():
        good = model(x, sigma, condition)
        return good, mode.worse(asked(mode, model, shape), x, sigma, condition, good)
