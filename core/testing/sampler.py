"""The contract of a sampler: from noise to the images that the denoiser knows, each image on its
own.

The denoisers are exact: that of a single image, and that of pixels with a normal distribution.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from hypothesis import strategies as st
from torch import Tensor

from fw.core.kinds import Sampler
from fw.core.kinds.boundaries import checked_samples
from fw.core.randomness import Draws
from fw.core.testing import tiny, usual
from fw.core.testing.compare import assert_like, largest_difference
from fw.core.testing.forall import forall
from fw.core.testing.global_state import repeated
from fw.core.testing.usual import Batch, OnDevice, Use

Range = tuple[float, float]

RANGES: tuple[Range, ...] = ((0.002, 80.0), (0.02, 10.0), (0.006, 20_000.0))
WIDEST: Range = (1e-5, 1e6)
"""For a sampler whose fields need noise levels beyond those of common models."""
SHAPES = st.sampled_from([(1, 8, 8), (3, 4, 6)])
MEAN = 0.3
NARROW, WIDE = 0.2, 0.8
"""Standard deviations of pixels, with which hardly any is outside of -1..1, or many are."""
FEW = " (or do these fields make too few steps?)"


def check_speaks(sampler: Sampler) -> None:
    """check() refuses noise levels by ValueError and by nothing else, and does not refuse all of
    them"""

    def body(low: float, factor: float) -> None:
        with contextlib.suppress(ValueError):
            sampler.check((low, low * factor))

    forall(body, low=st.floats(1e-5, 2), factor=st.floats(1.01, 1e6))
    ranges(sampler)


def right_shape(sampler: Sampler) -> None:
    """Samples are finite and have the shape, dtype and device of the noise"""

    def body(shape: tuple[int, int, int], count: int) -> None:
        for device in tiny.devices():
            noise, draws = start(range(count), shape, device)
            samples = run(sampler, gaussian(sampler, shape, device), noise, draws)
            with tiny.as_in_a_run():
                checked_samples(sampler, samples, noise, {})
            assert_like(samples, noise)

    forall(body, shape=SHAPES, count=st.integers(1, 5), examples=6)


def price_is_stated(sampler: Sampler) -> None:
    """It calls the denoiser as often as `nfe` says, whatever the batch and the noise levels"""
    for trained in ranges(sampler):
        for count in (1, 3):
            denoise = Exact(picture(), 0.0, *trained)
            run(sampler, denoise, *start(range(count)))
            calls = len(denoise.calls)
            assert calls == sampler.nfe, (
                f"{calls} times for {count} images at {text_of(trained)}, not {sampler.nfe}"
            )


def says_when_it_asks(sampler: Sampler) -> None:
    """asks() gives the noise levels of its calls in order, and leaves global generators alone"""
    for trained in ranges(sampler):
        denoise = Exact(picture(), 0.0, *trained)
        run(sampler, denoise, *start(range(2)))
        levels = [float(call.sigma) for call in denoise.calls]
        stated = repeated(partial(sampler.asks, trained))
        off = [
            pair
            for pair in zip(stated, levels, strict=False)
            if not math.isclose(*pair, rel_tol=1e-6)
        ]
        assert len(stated) == len(levels), (
            f"it says {len(stated)} and calls {len(levels)} times at {text_of(trained)}"
        )
        assert not off, (
            f"it says {off[0][0]:.6g} and calls at {off[0][1]:.6g}, at {text_of(trained)}"
        )


def asks_inside_the_range(sampler: Sampler) -> None:
    """It calls the denoiser only at noise levels that the model is trained for, each a float"""

    def body(low: float, factor: float) -> None:
        if accepts(sampler, (low, low * factor)):
            inside((low, low * factor))

    def inside(trained: Range) -> None:
        denoise = Exact(picture(), 0.0, *trained)
        run(sampler, denoise, *start(range(2)))
        for call in denoise.calls:
            assert isinstance(call.sigma, float | int), f"sigma is a {type(call.sigma).__name__}"
            assert trained[0] * 0.9999 <= call.sigma <= trained[1] * 1.0001, (
                f"sigma is {call.sigma:.6g} for a model with {text_of(trained)}"
            )

    forall(body, low=st.floats(1e-3, 0.1), factor=st.floats(50, 1e5), examples=6)
    for trained in ranges(sampler):
        inside(trained)


def asks_about_noisy_images(sampler: Sampler) -> None:
    """It calls the denoiser with one image per noise that has as much noise as it says, x0 +
    sigma * n"""
    trained = ranges(sampler)[0]
    noise, draws = start(range(6))
    denoise = Exact(picture(), 0.0, *trained)
    run(sampler, denoise, noise, draws)
    for call in denoise.calls:
        assert call.x.shape == noise.shape, (
            f"it is called with {tuple(call.x.shape)} for noise {tuple(noise.shape)}"
        )
        spread = float(((call.x - picture()) / call.sigma).square().mean().sqrt())
        assert 0.5 < spread < 2, (
            f"at sigma {call.sigma:.6g} the noise has standard deviation {spread:.3g} * sigma{FEW}"
        )


def finds_the_image(sampler: Sampler) -> None:
    """Where the data is a single image, every sample is that image"""
    for trained in ranges(sampler):
        samples = run(sampler, Exact(picture(), 0.0, *trained), *start(range(4)))
        error = float((samples - picture()).abs().max())
        allowed = max(0.05, 4 * trained[0])
        assert error <= allowed, (
            f"it is up to {error:.3g} away, for a model with {text_of(trained)}{FEW}"
        )


def finds_the_mean(sampler: Sampler) -> None:
    """Where pixels have a normal distribution, samples have its mean"""
    for trained in ranges(sampler):
        denoise = Exact(torch.full((1, 8, 8), MEAN), NARROW, *trained)
        mean = float(run(sampler, denoise, *start(range(16))).mean())
        assert abs(mean - MEAN) <= 0.05, (
            f"it is {mean:.3f}, not {MEAN}, for a model with {text_of(trained)}{FEW}"
        )


def noise_matters(sampler: Sampler) -> None:
    """Other noise gives other samples: arms are compared on the same noise"""
    denoise = gaussian(sampler)
    noise, _ = start(range(3))
    one, other = (run(sampler, denoise, each, start(range(3))[1]) for each in (noise, -noise))
    assert not torch.equal(one, other), (
        "the samples are the same: it starts from something else than the given noise"
    )


@usual.same_in_any_batch
def batch_does_not_matter(sampler: Sampler) -> Iterator[Batch]:
    """An image depends on its own noise and generator, not on the batch that it is in"""
    yield Batch(
        5, lambda rows: run(sampler, gaussian(sampler), *start(rows)), 1e-5, largest_difference
    )


@usual.pure
def pure(sampler: Sampler) -> Iterator[Use]:
    """Samples depend only on the denoiser, the noise and the generators: not on earlier calls or
    global state"""
    noise, _ = start(range(3))
    other = Exact(picture(), 0.0, *ranges(sampler)[0])
    yield Use(
        lambda: run(sampler, gaussian(sampler), noise, start(range(3))[1]),
        {"the noise": noise},
        lambda: run(sampler, other, *start(range(5, 8))),
    )


@usual.same_on_a_gpu
def same_on_a_gpu(sampler: Sampler) -> Iterator[OnDevice]:
    """On a GPU, where there is one, it makes the images that it makes on the CPU"""

    def compute(device: str) -> Tensor:
        return run(sampler, gaussian(sampler, device=device), *start(range(3), device=device))

    yield OnDevice(compute, 0.01, largest_difference)


CLAUSES = (
    check_speaks,
    right_shape,
    price_is_stated,
    says_when_it_asks,
    asks_inside_the_range,
    asks_about_noisy_images,
    finds_the_image,
    finds_the_mean,
    noise_matters,
    batch_does_not_matter,
    pure,
    same_on_a_gpu,
)


@dataclass
class Call:
    """A call of a denoiser: x (B, C, H, W) and its noise level."""

    x: Tensor
    sigma: float


@dataclass
class Exact:
    """The exact denoiser for data whose pixels are N(mean, std^2); it records its calls."""

    mean: Tensor
    std: float
    sigma_min: float
    sigma_max: float
    calls: list[Call] = field(default_factory=list)

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.calls.append(Call(x.clone(), sigma))
        share = self.std**2 / (self.std**2 + sigma**2) if self.std else 0.0
        return self.mean + share * (x - self.mean)


def gaussian(
    sampler: Sampler, shape: tuple[int, int, int] = tiny.SHAPE, device: str = "cpu"
) -> Exact:
    return Exact(torch.full(shape, MEAN, device=device), WIDE, *ranges(sampler)[0])


def picture() -> Tensor:
    """An image (1, 8, 8) from -0.9 to 0.9."""
    return torch.linspace(-0.9, 0.9, 64).view(tiny.SHAPE)


def start(
    rows: Sequence[int], shape: tuple[int, int, int] = tiny.SHAPE, device: str = "cpu"
) -> tuple[Tensor, Draws]:
    """Noise of the images `rows` and what more is drawn for them: the same in any batch, as
    sampling has them."""
    draws = Draws("sampler", rows=rows)
    return draws.normal(*shape).to(device), draws


@torch.inference_mode()
def run(sampler: Sampler, denoise: Exact, noise: Tensor, draws: Draws) -> Tensor:
    return sampler.sample(denoise, noise, draws)


def ranges(sampler: Sampler) -> list[Range]:
    """The ranges of noise levels that the sampler accepts."""
    accepted = [trained for trained in RANGES if accepts(sampler, trained)]
    if not accepted and accepts(sampler, WIDEST):
        accepted = [WIDEST]
    assert accepted, (
        f"check() refuses every range tried: {', '.join(map(text_of, (*RANGES, WIDEST)))}"
    )
    return accepted


def accepts(sampler: Sampler, trained: Range) -> bool:
    try:
        sampler.check(trained)
    except ValueError:
        return False
    return True


def text_of(trained: Range) -> str:
    return f"noise levels {trained[0]:.4g} to {trained[1]:.4g}"
