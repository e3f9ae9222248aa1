"""Every process is the same diffusion in other coordinates: checked on data whose denoiser is
known exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.kinds import Process
from fw.plugins.processes.ddpm import DDPM, Schedule, alphas_cumprod
from fw.plugins.processes.edm import EDM
from fw.plugins.processes.flow import Flow

PROCESSES: list[Process] = [
    *(DDPM(prediction=p, schedule=s) for p in ("eps", "v", "x0") for s in ("linear", "cosine")),
    EDM(sigma_data=0.7),
    Flow(),
    Flow(time="uniform"),
]
DIFFUSERS = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
processes = pytest.mark.parametrize(
    "process", PROCESSES, ids=lambda p: "-".join(map(str, p.spec().values()))
)
anywhere = st.floats(0, 1)
few = settings(deadline=None, max_examples=40)


def diffusers_abar(schedule: Schedule, timesteps: int) -> Tensor:
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    return DDPMScheduler(
        num_train_timesteps=timesteps, beta_schedule=DIFFUSERS[schedule]
    ).alphas_cumprod


def sigma_at(process: Process, where: float) -> float:
    """A noise level in the process's range, evenly in the logarithm."""
    low, high = process.sigma_range
    return min(max(low * (high / low) ** where, low), high)


def sigma_of(process: Process, noise: Tensor) -> Tensor:
    """The noise level that a network reads off its noise input, from the papers' definitions."""
    match process:
        case DDPM():
            abar = diffusers_abar(process.schedule, process.timesteps).double().numpy()
            table = np.log((1 - abar) / abar) / 2
            return torch.from_numpy(np.exp(np.interp(noise.numpy(), np.arange(len(table)), table)))
        case EDM():
            return (4 * noise).exp()
    t = noise / 1000
    return t / (1 - t)


def prediction_of(process: Process, sigma: Tensor, x0: Tensor, n: Tensor) -> Tensor:
    """What the papers tell the network to predict, from clean data and unit noise."""
    match process:
        case DDPM(prediction="eps"):
            return n
        case DDPM(prediction="x0"):
            return x0
        case DDPM(prediction="v"):
            angle = sigma.atan()
            return angle.cos() * n - angle.sin() * x0
        case EDM(sigma_data=data):
            skip, out = data**2 / (sigma**2 + data**2), sigma * data / (sigma**2 + data**2).sqrt()
            return (x0 - skip * (x0 + sigma * n)) / out
    return n - x0


def input_scale(process: Process, sigma: Tensor) -> Tensor:
    match process:
        case DDPM():
            return sigma.atan().cos()
        case EDM(sigma_data=data):
            return 1 / (sigma**2 + data**2).sqrt()
    return 1 / (1 + sigma)


class GaussianNetwork(nn.Module):
    """The best possible network for data N(mean, std^2); it knows only its scaled input and its
    noise input."""

    def __init__(self, process: Process, mean: float, std: float):
        super().__init__()
        self.process, self.mean, self.std = process, mean, std

    def forward(self, x: Tensor, noise: Tensor, *_: object) -> Tensor:
        sigma = sigma_of(self.process, noise)[:, None, None, None]
        x = x / input_scale(self.process, sigma)
        variance = self.std**2 + sigma**2
        x0 = (self.std**2 * x + sigma**2 * self.mean) / variance
        n = sigma * (x - self.mean) / variance
        return prediction_of(self.process, sigma, x0, n)


@processes
@few
@given(anywhere, st.floats(-1, 1), st.floats(0.05, 2), st.integers(0, 1000))
def test_the_exact_network_for_gaussian_data_gives_the_posterior_mean(
    process, where, mean, std, seed
):
    sigma = sigma_at(process, where)
    draw = torch.Generator().manual_seed(seed)
    x = mean + math.hypot(std, sigma) * torch.randn(3, 1, 2, 2, generator=draw, dtype=torch.float64)
    found = NetworkDenoiser(GaussianNetwork(process, mean, std), process)(x, sigma)
    expected = (std**2 * x + sigma**2 * mean) / (std**2 + sigma**2)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@processes
@few
@given(anywhere, st.floats(-1, 1), st.floats(-4, 4))
def test_the_coefficients_turn_the_papers_target_into_x0(process, where, x0, n):
    sigma = torch.tensor([sigma_at(process, where)], dtype=torch.float64)
    clean, unit = torch.tensor([x0], dtype=torch.float64), torch.tensor([n], dtype=torch.float64)
    skip, out, scale, _ = process.coefficients(sigma)
    denoised = skip * (clean + sigma * unit) + out * prediction_of(process, sigma, clean, unit)
    torch.testing.assert_close(denoised, clean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(scale, input_scale(process, sigma))


class Answer(nn.Module):
    def __init__(self, answer: Tensor):
        super().__init__()
        self.answer = answer

    def forward(self, *_: object) -> Tensor:
        return self.answer


@processes
@few
@given(anywhere, st.integers(0, 1000))
def test_the_loss_is_the_mean_squared_error_of_the_papers_target(process, where, seed):
    draw = torch.Generator().manual_seed(seed)
    x0, n = torch.randn(2, 4, 1, 3, 3, generator=draw, dtype=torch.float64)
    sigma = torch.full((4,), sigma_at(process, where), dtype=torch.float64)
    target = prediction_of(process, sigma[:, None, None, None], x0, n)
    perfect = NetworkDenoiser(Answer(target), process).loss(x0, sigma, n, None, None)
    silent = NetworkDenoiser(Answer(torch.zeros_like(target)), process).loss(
        x0, sigma, n, None, None
    )
    torch.testing.assert_close(perfect, torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-10)
    torch.testing.assert_close(silent, target.square().mean(dim=(1, 2, 3)), rtol=1e-6, atol=1e-9)


@given(anywhere, st.floats(0.1, 3))
@few
def test_edm_gives_the_network_unit_variance_in_and_out(where, data):
    process = EDM(sigma_data=data)
    sigma = torch.tensor([sigma_at(process, where)], dtype=torch.float64)
    skip, out, scale, _ = process.coefficients(sigma)
    one = torch.ones(1, dtype=torch.float64)
    torch.testing.assert_close(scale**2 * (data**2 + sigma**2), one)
    torch.testing.assert_close(((1 - skip) ** 2 * data**2 + skip**2 * sigma**2) / out**2, one)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("timesteps", [2, 100, 1000, 4000])
def test_the_ddpm_table_is_that_of_diffusers(schedule: Schedule, timesteps: int):
    torch.testing.assert_close(
        alphas_cumprod(schedule, timesteps), diffusers_abar(schedule, timesteps), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_ddpm_finds_the_timestep_of_a_noise_level_and_interpolates_between(schedule: Schedule):
    process = DDPM(schedule=schedule)
    steps = torch.arange(1000, dtype=torch.float32)
    sigmas = process.sigmas((steps + 0.5) / 1000)
    torch.testing.assert_close(process.coefficients(sigmas).noise, steps, rtol=0, atol=0.01)
    between = process.coefficients((sigmas[1:] * sigmas[:-1]).sqrt()).noise
    torch.testing.assert_close(between, steps[:-1] + 0.5, rtol=0, atol=0.01)


def test_ddpm_holds_the_timestep_at_the_ends_of_its_table():
    noise = DDPM(schedule="linear").coefficients(torch.tensor([1e-5, 1e5])).noise
    assert noise.tolist() == [0, 999]


def test_a_table_first_used_in_inference_mode_serves_training_too():
    process = DDPM(timesteps=37)
    with torch.inference_mode():
        process.coefficients(torch.ones(1))
    sigma = torch.ones(1, requires_grad=True)
    process.coefficients(sigma).noise.sum().backward()
    assert sigma.grad is not None
    assert sigma.grad > 0


@processes
def test_training_noise_levels_rise_with_the_uniform_number_and_stay_in_range(process):
    uniform = torch.cat([torch.linspace(0, 1, 5001)[:-1], torch.tensor([1 - 2.0**-24])])
    sigmas = process.sigmas(uniform)
    low, high = process.sigma_range
    assert sigmas.isfinite().all()
    assert (sigmas.diff() >= 0).all()
    assert sigmas.min() >= low * (1 - 1e-5)
    assert sigmas.max() <= high * (1 + 1e-5)


@few
@given(st.floats(0.001, 0.999), st.floats(-2, 1), st.floats(0.5, 1.5))
def test_log_normal_and_logit_normal_quantiles_are_those_of_scipy(share, mean, std):
    from scipy.stats import norm

    uniform = torch.tensor([share], dtype=torch.float64)
    expected = norm.ppf(share, mean, std)
    assert EDM(p_mean=mean, p_std=std).sigmas(uniform).log().item() == pytest.approx(
        np.clip(expected, math.log(0.002), math.log(80)), abs=1e-9
    )
    sigma = Flow(mean=mean, std=std).sigmas(uniform)
    assert (sigma / (1 + sigma)).logit().item() == pytest.approx(
        np.clip(expected, -6.9067, 6.9067), abs=1e-4
    )


@processes
def test_the_range_of_noise_levels_is_what_a_training_draws(process):
    """Of 50 million images, uniform numbers evenly spread: no level is claimed that none has."""
    low, high = process.sigma_range
    first, last = process.sigmas(torch.tensor([1e-8, 1 - 1e-8], dtype=torch.float64)).tolist()
    assert last == pytest.approx(high, rel=1e-3)
    assert first == pytest.approx(low, rel=1e-3)


@few
@given(st.floats(-3, 3), st.floats(0.3, 3))
def test_one_training_image_in_a_million_lies_beyond_the_noise_levels_of_a_log_normal(mean, std):
    from scipy.stats import norm

    least, most = norm.ppf([1e-6, 1 - 1e-6], mean, std)
    assert Flow(mean=mean, std=std, t_min=1e-9, t_max=1 - 1e-9).sigma_range == pytest.approx(
        (max(math.exp(least), 1e-9), min(math.exp(most), 1e9)), rel=1e-6
    )
    narrow = EDM(p_mean=mean, p_std=std, sigma_min=1e-9, sigma_max=1e9).sigma_range
    assert narrow == pytest.approx((max(math.exp(least), 1e-9), min(math.exp(most), 1e9)), rel=1e-6)


def test_edm_samples_from_the_papers_noise_levels_which_its_training_draws():
    assert EDM().sigma_range == (0.002, 80.0)


@few
@given(st.floats(0, 0.999), st.integers(2, 2000))
def test_uniform_times_are_uniform(share, timesteps):
    uniform = torch.tensor([share], dtype=torch.float64)
    sigma = Flow(time="uniform", t_min=0.1, t_max=0.9).sigmas(uniform)
    assert (sigma / (1 + sigma)).item() == pytest.approx(0.1 + 0.8 * share)
    process = DDPM(schedule="linear", timesteps=timesteps)
    assert process.coefficients(process.sigmas(uniform)).noise.item() == pytest.approx(
        math.floor(share * timesteps), abs=1e-3
    )


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (
            lambda: EDM(sigma_min=2, sigma_max=1),
            "sigma_min .2.0. must be smaller than sigma_max .1.0.",
        ),
        (lambda: Flow(t_min=0.5, t_max=0.5), "t_min .0.5. must be smaller than t_max .0.5."),
        (lambda: Flow(t_max=1.0), "less than 1"),
        (lambda: EDM(p_mean=1000), "training would draw no noise levels from 0.002 to 80"),
        (lambda: Flow(mean=-40), "training would draw no noise levels from 0.001001 to 999"),
        (lambda: DDPM(timesteps=1), "greater than or equal to 2"),
    ],
)
def test_impossible_ranges_are_refused(build, said):
    with pytest.raises(ValidationError, match=said):
        build()
