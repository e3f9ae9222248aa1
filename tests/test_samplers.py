"""Samplers on Gaussian data, where the denoiser and the solution of the ODE are known exactly."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from fw.core.randomness import Draws
from fw.plugins.samplers.ddim import DDIM
from fw.plugins.samplers.ddpm import Ancestral
from fw.plugins.samplers.dpmpp import DPMSolverPP
from fw.plugins.samplers.heun import Heun
from fw.plugins.samplers.noise_levels import NoiseLevels

DETERMINISTIC = [DDIM, DPMSolverPP, Heun]
SAMPLERS: list[NoiseLevels] = [
    DDIM(steps=6, clip=None),
    DDIM(steps=6, eta=1, clip=None),
    Ancestral(steps=6, clip=None),
    DPMSolverPP(steps=6, clip=None),
    DPMSolverPP(steps=6, order=3, schedule="linear"),
    Heun(steps=6, clip=None),
    Heun(steps=6, order=1),
    Heun(steps=6, churn=2, clip=None),
]
every_sampler = pytest.mark.parametrize(
    "sampler", SAMPLERS, ids=lambda s: f"{s.name}-{SAMPLERS.index(s)}"
)


class Gaussian:
    """The exact denoiser for data N(mean, std^2); counts its calls."""

    def __init__(
        self, mean: float = 0.3, std: float = 0.5, sigma_min: float = 0.002, sigma_max: float = 80.0
    ):
        self.mean, self.std, self.sigma_min, self.sigma_max = mean, std, sigma_min, sigma_max
        self.seen: list[float] = []

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.seen.append(sigma)
        return (self.std**2 * x + sigma**2 * self.mean) / (self.std**2 + sigma**2)

    def solution(self, noise: Tensor) -> Tensor:
        """x(0) of the probability-flow ODE that starts at x(sigma_max) = sigma_max * noise."""
        x = self.sigma_max * noise.double()
        return self.mean + (x - self.mean) * self.std / math.hypot(self.std, self.sigma_max)


def noise_and_generators(count: int, side: int = 8) -> tuple[Tensor, Draws]:
    noise = torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(0))
    return noise, Draws("samplers", rows=range(count))


@every_sampler
def test_nfe_is_the_number_of_evaluations(sampler):
    denoise = Gaussian()
    sampler.sample(denoise, *noise_and_generators(3))
    assert len(denoise.seen) == sampler.nfe


@pytest.mark.parametrize("sigma_max", [80.0, 20_291.0])
@pytest.mark.parametrize("kind", [DDIM, DPMSolverPP])
def test_many_steps_reach_the_solution_of_the_ode(kind, sigma_max):
    denoise = Gaussian(sigma_max=sigma_max)
    noise, generators = noise_and_generators(4)
    sampler = kind(steps=300, clip=None, schedule="cosine", sigma_max=sigma_max)
    found = sampler.sample(denoise, noise, generators)
    torch.testing.assert_close(found.double(), denoise.solution(noise), rtol=0, atol=0.015)


def errors_of(build: Callable[..., NoiseLevels], schedule: str) -> list[float]:
    """Root mean square errors against the ODE's solution at 100, 200 and 400 steps."""
    noise, generators = noise_and_generators(8)
    denoise = Gaussian(sigma_min=1e-4, sigma_max=20.0)
    solution = denoise.solution(noise)
    fields = {"schedule": schedule, "sigma_min": denoise.sigma_min, "clip": None}
    samplers = [build(steps=steps, **fields) for steps in (100, 200, 400)]
    samples = [sampler.sample(denoise, noise.double(), generators) for sampler in samplers]
    return [(found - solution).square().mean().sqrt().item() for found in samples]


@pytest.mark.parametrize(
    ("build", "order"),
    [
        (DDIM, 1),
        (partial(Heun, order=1), 1),
        (partial(DPMSolverPP, order=1), 1),
        (partial(DPMSolverPP, order=2), 2),
        (partial(Heun, order=2), 2),
    ],
    ids=["ddim", "euler", "dpmpp1", "dpmpp2", "heun"],
)
def test_halving_the_steps_shrinks_the_error_as_the_order_says(build, order):
    for coarse, fine in itertools.pairwise(errors_of(build, "karras")):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_dpmpp_stays_nearly_second_order_where_the_last_steps_are_long_in_log_sigma(schedule):
    """The last steps halve sigma however many there are, which costs a logarithm: N^-2 log N."""
    for coarse, fine in itertools.pairwise(errors_of(DPMSolverPP, schedule)):
        assert 1.5 < math.log2(coarse / fine) < 2
    for coarse, fine in itertools.pairwise(errors_of(DDIM, schedule)):
        assert math.log2(coarse / fine) == pytest.approx(1, abs=0.15)


def test_ten_steps_of_dpmpp_beat_ten_of_ddim():
    noise, generators = noise_and_generators(8)
    denoise = Gaussian(sigma_max=20_291.0)
    ddim, dpmpp = (
        (kind(steps=10, clip=None).sample(denoise, noise, generators) - denoise.solution(noise))
        .square()
        .mean()
        for kind in (DDIM, DPMSolverPP)
    )
    assert dpmpp < ddim / 4


def posterior_variance(sigmas: list[float], std: float) -> float:
    """What ancestral sampling does to the variance of Gaussian data, step by step, from q(x_s |
    x_t, x0)."""
    variance = sigmas[0] ** 2
    for sigma, target in itertools.pairwise([*sigmas, 0.0]):
        keep = target**2 / sigma**2
        gain = keep + (1 - keep) * std**2 / (std**2 + sigma**2)
        variance = gain**2 * variance + target**2 * (1 - keep)
    return variance


@pytest.mark.parametrize("schedule", ["logistic", "karras", "cosine", "linear"])
@pytest.mark.parametrize(
    "build", [Ancestral, lambda **fields: DDIM(eta=1, **fields)], ids=["ddpm", "ddim-eta1"]
)
def test_ancestral_sampling_has_the_variance_of_its_posterior(build, schedule):
    noise, generators = noise_and_generators(200)
    denoise = Gaussian()
    found = build(steps=25, schedule=schedule, clip=None).sample(denoise, noise, generators)
    expected = posterior_variance(denoise.seen, denoise.std)
    assert len(denoise.seen) == 25
    assert found.var().item() / expected == pytest.approx(1, abs=4.5 * math.sqrt(2 / found.numel()))
    assert found.mean().item() == pytest.approx(denoise.mean, abs=0.03)


def test_the_posteriors_variance_converges_to_the_datas():
    levels = Ancestral(steps=2000, schedule="cosine").levels(Gaussian())
    assert posterior_variance(levels, 0.5) == pytest.approx(0.25, rel=0.01)


def test_the_larger_variance_of_ancestral_sampling_is_a_steps_beta():
    """Against the recursion in DDPM's own coordinates (arXiv 2006.11239, eq. 7, and section 3.2 for
    sigma_t^2 = beta_t), for Gaussian data of mean 0."""
    noise, generators = noise_and_generators(200)
    denoise = Gaussian(mean=0.0)
    sampler = Ancestral(steps=25, schedule="vp", variance="large", clip=None)
    found = sampler.sample(denoise, noise, generators)
    abar = [1 / (1 + sigma**2) for sigma in (*denoise.seen, 0.0)]
    variance = 1 - abar[0]
    for now, then in itertools.pairwise(abar):
        beta = 1 - now / then
        kept = math.sqrt(now / then) * (1 - then) / (1 - now)
        predicted = math.sqrt(now) * denoise.std**2 / (now * denoise.std**2 + 1 - now)
        gain = kept + math.sqrt(then) * beta / (1 - now) * predicted
        variance = gain**2 * variance + (beta if then < 1 else 0)
    assert found.var().item() / variance == pytest.approx(1, abs=4.5 * math.sqrt(2 / found.numel()))
    assert variance > 1.1 * posterior_variance(denoise.seen, denoise.std)


class FromGenerators(Draws):
    """Normal numbers from the generator of each image, as diffusers draws them."""

    def normal(self, *shape: int) -> Tensor:
        return torch.stack([torch.randn(shape, generator=each) for each in self])


class OfDiffusers(Ancestral):
    """The same by diffusers' own DDPM."""

    def scheduler(self, **options):
        return DDPMScheduler(**options, clip_sample=False, variance_type=f"fixed_{self.variance}")

    def step_options(self, x: Tensor, draws: Draws, sigma: float, target: float):
        return {"generator": list(draws)}


@pytest.mark.parametrize(
    ("sampler", "variance"),
    [
        (Ancestral(steps=12), "small"),
        (Ancestral(steps=12, variance="large"), "large"),
        (DDIM(steps=12, eta=1), "small"),
    ],
)
def test_ancestral_sampling_is_diffusers_ddpm(sampler, variance):
    noise, _ = noise_and_generators(5)
    ours, theirs = (
        each.sample(Gaussian(), noise, FromGenerators("same", rows=range(5)))
        for each in (sampler, OfDiffusers(steps=12, variance=variance))
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("churn", [10, 60])
def test_churn_keeps_the_mean_and_the_variance_of_the_data(churn):
    noise, generators = noise_and_generators(200)
    denoise = Gaussian(sigma_min=0.01, sigma_max=20.0)
    found = Heun(steps=150, churn=churn, clip=None).sample(denoise, noise, generators)
    assert found.std().item() / denoise.std == pytest.approx(
        1, abs=0.02 + 4.5 / math.sqrt(2 * found.numel())
    )
    assert found.mean().item() == pytest.approx(denoise.mean, abs=0.03)


def test_churn_changes_samples_only_inside_its_interval():
    still, _ = (Heun(steps=6).sample(Gaussian(), *noise_and_generators(2)) for _ in range(2))
    outside = Heun(steps=6, churn=3, churn_min=200).sample(Gaussian(), *noise_and_generators(2))
    inside = Heun(steps=6, churn=3, churn_max=200).sample(Gaussian(), *noise_and_generators(2))
    assert torch.equal(outside, still)
    assert not torch.allclose(inside, still)


@every_sampler
@settings(deadline=None, max_examples=8)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_samples_do_not_depend_on_the_batches_they_were_drawn_in(sampler, sizes):
    noise, generators = noise_and_generators(sum(sizes), side=3)
    together = sampler.sample(Gaussian(), noise, generators)
    _, generators = noise_and_generators(sum(sizes), side=3)
    ends = list(itertools.accumulate(sizes))
    parts = [
        sampler.sample(Gaussian(), noise[start:end], generators[start:end])
        for start, end in zip([0, *ends[:-1]], ends, strict=True)
    ]
    assert torch.equal(torch.cat(parts), together)


@every_sampler
def test_a_sampler_keeps_nothing_from_one_call_to_the_next(sampler):
    first = sampler.sample(Gaussian(), *noise_and_generators(2))
    sampler.sample(Gaussian(mean=-0.8), *noise_and_generators(7))
    assert torch.equal(sampler.sample(Gaussian(), *noise_and_generators(2)), first)


@every_sampler
def test_samples_keep_the_shape_and_precision_of_the_noise(sampler):
    noise, generators = noise_and_generators(2)
    found = sampler.sample(Gaussian(), noise, generators)
    assert found.shape == noise.shape
    assert found.dtype == torch.float32


@pytest.mark.parametrize("kind", [DDIM, Ancestral, DPMSolverPP, Heun])
def test_the_last_prediction_is_clipped(kind):
    far = Gaussian(mean=3.0, std=0.1)
    assert kind(steps=8).sample(far, *noise_and_generators(2)).abs().max() <= 1 + 1e-5
    assert kind(steps=8, clip=2.0).sample(far, *noise_and_generators(2)).min() > 1.5
    assert kind(steps=8, clip=None).sample(far, *noise_and_generators(2)).min() > 2.0


@pytest.mark.parametrize("schedule", ["logistic", "karras", "cosine", "linear", "vp"])
@pytest.mark.parametrize("steps", [1, 2, 9, 100])
def test_noise_levels_fall_from_sigma_max_towards_sigma_min(schedule, steps):
    levels = DDIM(steps=steps, schedule=schedule, sigma_min=0.01, sigma_max=50).levels(Gaussian())
    assert len(levels) == steps
    assert levels[0] == pytest.approx(50)
    assert all(after < before for before, after in itertools.pairwise(levels))
    assert levels[-1] >= 0.01 * (1 - 1e-9)


def test_each_spacing_is_even_in_its_own_coordinate():
    fields = {"steps": 10, "sigma_min": 0.01, "sigma_max": 50.0}
    coordinates = {
        "logistic": lambda sigma: 1 / (1 + sigma**-0.5),
        "cosine": math.atan,
        "linear": lambda sigma: sigma / (1 + sigma),
        "karras": lambda sigma: sigma ** (1 / 7),
        "vp": lambda sigma: (math.sqrt(0.1**2 + 2 * 19.9 * math.log1p(sigma**2)) - 0.1) / 19.9,
    }
    for schedule, coordinate in coordinates.items():
        places = torch.tensor(
            [coordinate(s) for s in DDIM(schedule=schedule, **fields).levels(Gaussian())]
        )
        torch.testing.assert_close(places.diff(), places.diff()[0].expand(9), rtol=1e-3, atol=1e-5)


def test_karras_levels_are_those_of_the_paper():
    levels = Heun(steps=18).levels(Gaussian())
    paper = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)]
    assert levels == pytest.approx(paper)


def test_a_thousand_vp_levels_are_nearly_ddpms_timesteps():
    """From beta_t as the paper has them: 1e-4 to 0.02 in 1000 steps."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    abar = (1 - betas).cumprod(0)
    timesteps = ((1 - abar) / abar).sqrt()
    ends = {"sigma_min": timesteps[0].item(), "sigma_max": timesteps[-1].item()}
    levels = DDIM(steps=1000, schedule="vp", **ends).levels(Gaussian(**ends))
    torch.testing.assert_close(
        torch.tensor(levels[::-1], dtype=torch.float64), timesteps, rtol=0.03, atol=0
    )


def test_a_range_beyond_the_models_is_refused():
    with pytest.raises(
        ValueError, match=r"dpmpp would go from sigma_max 100 to sigma_min 0\.002, but the model is"
    ):
        DPMSolverPP(sigma_max=100).sample(Gaussian(), *noise_and_generators(1))
    with pytest.raises(
        ValidationError, match=r"sigma_min .2.0. must be smaller than sigma_max .1.0."
    ):
        DDIM(sigma_min=2, sigma_max=1)
