"""The contract of a process: noise levels from uniform numbers, and coefficients that are each
noise level's own."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from hypothesis import strategies as st
from torch import Tensor

from fw.core.kinds import Coefficients, Process
from fw.core.kinds.boundaries import describe
from fw.core.testing import tiny, usual
from fw.core.testing.forall import forall
from fw.core.testing.usual import Use

LAST_BELOW_ONE = 1 - 2.0**-24
NEAR = 1.5
"""By what factor training may miss an end of the range of noise levels."""
UNIFORMS = st.lists(st.floats(0, 1, exclude_max=True, width=32), max_size=6)
PLACES = st.lists(st.floats(0, 1), max_size=6)
"""Places in the range of noise levels, 0 at its start and 1 at its end, evenly in log sigma."""


def serves_training_after_sampling(process: Process) -> None:
    """What it first computed in inference mode, it also computes in training

    First of all, because caches that a process fills would otherwise be filled by another clause.
    """
    uniform = torch.rand(4, generator=torch.Generator().manual_seed(0))

    def answers() -> list[Tensor]:
        sigma = process.sigmas(uniform)
        return [sigma, process.weight(sigma), *process.coefficients(sigma)]

    with torch.inference_mode():
        answers()
    free = torch.ones(4, requires_grad=True)
    for answer in answers():
        (free * answer).sum().backward()


def range_is_positive(process: Process) -> None:
    """Its noise levels run from a positive number to a larger, finite one"""
    low, high = process.sigma_range
    assert isinstance(low, float | int), f"sigma_range holds {type(low).__name__}, not float"
    assert isinstance(high, float | int), f"sigma_range holds {type(high).__name__}, not float"
    assert 0 < low < high < math.inf, f"sigma_range is {low} to {high}"


def sigmas_in_range(process: Process) -> None:
    """sigmas() maps uniform numbers in [0, 1) into sigma_range, in their shape, dtype and device"""
    low, high = process.sigma_range

    def body(uniforms: list[float]) -> None:
        for device in tiny.devices():
            uniform = torch.tensor([0.0, *uniforms, LAST_BELOW_ONE], device=device)
            sigmas = process.sigmas(uniform)
            same_form(sigmas, uniform, "sigmas")
            inside = (sigmas >= low * 0.999) & (sigmas <= high * 1.001)
            assert inside.all(), (
                f"{uniform[~inside][0]:.9g} becomes {sigmas[~inside][0]:.9g}, and the range is "
                f"{low:.9g} to {high:.9g}"
            )

    forall(body, uniforms=UNIFORMS)


def training_reaches_both_ends(process: Process) -> None:
    """Both ends of sigma_range are levels that training draws: a sampler starts at one and ends at
    the other"""
    low, high = process.sigma_range
    first, last = process.sigmas(torch.tensor([1 - LAST_BELOW_ONE, LAST_BELOW_ONE])).tolist()
    assert last >= high / NEAR, f"it ends at {high:.6g}, and training draws {last:.6g} at most"
    assert first <= low * NEAR, f"it begins at {low:.6g}, and training draws {first:.6g} at least"


def sigmas_rise(process: Process) -> None:
    """sigmas() is an inverse CDF: of two uniform numbers, the larger never gets the smaller
    noise level"""

    def body(uniforms: list[float]) -> None:
        uniform = torch.tensor([0.0, *uniforms, LAST_BELOW_ONE]).sort().values
        sigmas = process.sigmas(uniform)
        falls = (sigmas.diff() < -1e-5 * sigmas[1:]).nonzero().flatten().tolist()
        assert not falls, (
            f"{uniform[falls[0]]:.9g} and {uniform[falls[0] + 1]:.9g} become "
            f"{sigmas[falls[0]]:.9g} and {sigmas[falls[0] + 1]:.9g}"
        )
        assert sigmas[-1] > sigmas[0], f"every uniform number becomes {sigmas[0]:.9g}"

    forall(body, uniforms=UNIFORMS)


def coefficients_are_usable(process: Process) -> None:
    """coefficients() are four finite tensors like the noise levels (B,); out and scale are never
    0"""

    def body(places: list[float]) -> None:
        for device in tiny.devices():
            sigma = levels(process, places).to(device)
            for name, values in by_name(process.coefficients(sigma)):
                same_form(values, sigma, name)
                wrong = ~values.isfinite()
                assert not wrong.any(), (
                    f"{name} is {values[wrong][0]} at sigma {sigma[wrong][0]:.6g}"
                )
                if name in ("out", "scale"):
                    assert values.all(), f"{name} is 0 at sigma {sigma[values == 0][0]:.6g}"

    forall(body, places=PLACES)


def precision_is_kept(process: Process) -> None:
    """Noise levels in float64 get coefficients in float64"""
    sigma = levels(process, []).double()
    for name, values in by_name(process.coefficients(sigma)):
        same_form(values, sigma, name)


def each_level_is_its_own(process: Process) -> None:
    """The coefficients and the weight of a noise level do not depend on what else is in the
    batch"""

    def body(places: list[float]) -> None:
        sigma = levels(process, places)
        together = {**dict(by_name(process.coefficients(sigma))), "weight": process.weight(sigma)}
        for index in range(len(sigma)):
            one = sigma[index : index + 1]
            for name, value in (
                *by_name(process.coefficients(one)),
                ("weight", process.weight(one)),
            ):
                alone, among = float(value), float(together[name][index])
                assert math.isclose(alone, among, rel_tol=1e-4, abs_tol=1e-6), (
                    f"{name} at sigma {float(one):.6g} is {alone:.6g} alone and {among:.6g} in a "
                    f"batch of {len(sigma)}"
                )

    forall(body, places=PLACES)


def weight_is_usable(process: Process) -> None:
    """weight() is finite, never negative and somewhere positive, a tensor like the noise levels
    (B,)"""

    def body(places: list[float]) -> None:
        sigma = levels(process, places)
        weight = process.weight(sigma)
        same_form(weight, sigma, "weight")
        wrong = ~((weight >= 0) & weight.isfinite())
        assert not wrong.any(), f"it is {weight[wrong][0]:.6g} at sigma {sigma[wrong][0]:.6g}"

    forall(body, places=PLACES)
    assert process.weight(levels(process, [place / 100 for place in range(100)])).any(), (
        "it is 0 everywhere"
    )


@usual.pure
def pure(process: Process) -> Iterator[Use]:
    """It gives the same for the same, whatever was called before, and leaves its inputs alone"""

    def answers(sigma: Tensor, uniform: Tensor) -> list[Tensor]:
        return [*process.coefficients(sigma), process.weight(sigma), process.sigmas(uniform)]

    sigma, uniform = levels(process, [0.3, 0.6]), torch.tensor([0.0, 0.2, 0.9])
    others = levels(process, [0.1, 0.2]), torch.tensor([0.1, 0.5, 0.7])
    inputs = {"the noise levels": sigma, "the uniform numbers": uniform}
    yield Use(lambda: answers(sigma, uniform), inputs, lambda: answers(*others))


CLAUSES = (
    serves_training_after_sampling,
    range_is_positive,
    sigmas_in_range,
    training_reaches_both_ends,
    sigmas_rise,
    coefficients_are_usable,
    precision_is_kept,
    each_level_is_its_own,
    weight_is_usable,
    pure,
)


def levels(process: Process, places: list[float]) -> Tensor:
    """Both ends of the range of noise levels and `places` within it, float32 (B,)."""
    low, high = process.sigma_range
    return torch.tensor([low, *(low * (high / low) ** place for place in places), high])


def by_name(coefficients: Coefficients) -> list[tuple[str, Tensor]]:
    return list(zip(Coefficients._fields, coefficients, strict=True))


def same_form(values: Tensor, given: Tensor, name: str) -> None:
    """AssertionError unless `values` have the shape, dtype and device of what was given."""
    assert (values.shape, values.dtype) == (given.shape, given.dtype), (
        f"{name} is {describe(values)} for {describe(given)}: one value per image, in the same "
        "precision"
    )
    assert values.device == given.device, (
        f"{name} is on {values.device} for numbers on {given.device}"
    )
