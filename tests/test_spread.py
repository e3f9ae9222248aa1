"""What samplers make of data whose denoiser is exact: by the fields' defaults close to the truth,
and where they are not, said before a run."""

from __future__ import annotations

import itertools
import math
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from exact_mixture import STD, VARIANCE, sampled
from torch import Tensor

from fw.core.diffusion import spread as spreads
from fw.core.diffusion.spread import drawn, spread, taken_apart
from fw.core.kinds import Denoise, Process, Sampler
from fw.core.randomness import Draws
from fw.core.recipe.checks import warnings
from fw.core.recipe.loading import load, validate
from fw.core.recipe.model import Recipe
from fw.core.recipe.sampling import TOLERANCE, arm_spread, fits
from fw.core.recipe.source import parse, read
from fw.plugins.processes.ddpm import DDPM
from fw.plugins.processes.edm import EDM
from fw.plugins.processes.flow import Flow
from fw.plugins.samplers.ddim import DDIM
from fw.plugins.samplers.ddpm import Ancestral
from fw.plugins.samplers.dpmpp import DPMSolverPP
from fw.plugins.samplers.heun import Heun
from fw.plugins.samplers.noise_levels import NoiseLevels
from fw.registry import Provider, installed
from tests.toys import RECIPE, registry

TINY = Path(__file__).parent / "tiny.yaml"
PROCESSES = [DDPM(), DDPM(schedule="linear"), EDM(), Flow(), Flow(time="uniform")]
processes = pytest.mark.parametrize(
    "process", PROCESSES, ids=["cosine", "linear", "edm", "flow", "uniform"]
)
RECIPES = sorted(
    Path(str(entry)) for entry in files("fw.recipes").iterdir() if entry.name.endswith(".yaml")
)


# The defaults


@processes
@pytest.mark.parametrize("kind", [Heun, DPMSolverPP, DDIM, Ancestral])
def test_the_defaults_draw_a_mixture_with_its_variance_and_its_shares(
    kind: type[NoiseLevels], process: Process
) -> None:
    """Heun's were 1.71 times the variance under `cosine` and 1.21 under `flow`."""
    result = sampled(kind(clip=None), process)
    assert result.variance / VARIANCE == pytest.approx(1, abs=0.07)
    assert result.left == pytest.approx(0.7, abs=0.015)
    assert [mode / STD for mode in result.modes] == pytest.approx([1, 1], abs=0.1)


@processes
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_long_steps_at_high_noise_do_not_shift_the_shares_of_a_mixture(
    schedule: Any, process: Process
) -> None:
    """Under `cosine` they were 0.642 and 0.588 for 0.7, since the first step began at 20,291."""
    result = sampled(Heun(schedule=schedule, clip=None), process)
    assert result.variance / VARIANCE == pytest.approx(1, abs=0.03)
    assert result.left == pytest.approx(0.7, abs=0.01)


def test_twenty_steps_of_dpmpp_keep_the_width_of_narrow_modes() -> None:
    """In `cosine` spacing, which was the default, they narrow them by a quarter."""
    before = sampled(DPMSolverPP(steps=20, schedule="cosine", clip=None), DDPM())
    after = sampled(DPMSolverPP(steps=20, clip=None), DDPM())
    assert max(before.modes) / STD < 0.76
    assert [mode / STD for mode in after.modes] == pytest.approx([1, 1], abs=0.07)


@processes
def test_levels_lie_where_data_of_unit_range_have_signal(process: Process) -> None:
    low, high = process.sigma_range
    levels = DPMSolverPP(steps=9, schedule="karras").asks((low, high))
    assert levels[0] == pytest.approx(min(high, 80))
    assert levels[-1] == pytest.approx(max(low, 0.002))


def test_starting_from_pure_noise_at_80_costs_the_mean_less_than_one_percent() -> None:
    """Of data N(m, s^2) with s 0.5; the closed form is in plugins/samplers/noise_levels.py."""
    process, mean, std = EDM(), 0.8, 0.5

    class Shifted:
        sigma_min, sigma_max = process.sigma_range

        def __call__(self, x: Tensor, sigma: float) -> Tensor:
            return mean + std**2 / (std**2 + sigma**2) * (x - mean)

    noise = torch.tensor([-1.0, 1.0], dtype=torch.float64).view(2, 1, 1, 1)
    sampler = Heun(steps=1000, clip=None)
    below, above = sampler.sample(Shifted(), noise, Draws("", rows=range(2))).flatten().tolist()
    short = std / math.hypot(std, 80)
    assert short < 0.01
    assert (below + above) / 2 == pytest.approx(mean * (1 - short), rel=1e-4)
    assert (above - below) / 2 == pytest.approx(std / math.sqrt(1 + (std / 80) ** 2), rel=1e-3)


def test_a_first_level_that_a_recipe_names_is_taken_however_high() -> None:
    high = DDPM().sigma_range[1]
    assert Heun(sigma_max=high).asks(DDPM().sigma_range)[0] == pytest.approx(high)
    assert Heun(sigma_min=0.001).asks((0.001, 80.0))[-1] == pytest.approx(0.001)


def test_a_model_of_other_noise_levels_is_sampled_from_all_of_them() -> None:
    assert Heun().asks((100.0, 1000.0))[0] == pytest.approx(1000)
    assert Heun().asks((1e-5, 1e-3))[-1] == pytest.approx(1e-5)
    assert Heun(sigma_max=0.001).asks((1e-5, 80.0))[-1] == pytest.approx(1e-5)


# The exact numbers


def levels_of(sampler: Sampler, process: Process) -> list[float]:
    return [*sampler.asks(process.sigma_range), 0.0]


def angles(levels: list[float], std: float) -> float:
    """DDIM's spread of Gaussian data: the product of the cosines of its steps in arctan(sigma /
    std)."""
    places = [math.atan(sigma / std) for sigma in levels]
    return math.prod([math.sin(places[0]), *(math.cos(a - b) for a, b in pairs(places))])


def posterior(levels: list[float], std: float) -> float:
    """That of ancestral sampling, from q(x_s | x_t, x0)."""
    variance = levels[0] ** 2
    for sigma, target in pairs(levels):
        keep = target**2 / sigma**2
        gain = keep + (1 - keep) * std**2 / (std**2 + sigma**2)
        variance = gain**2 * variance + target**2 * (1 - keep)
    return math.sqrt(variance) / std


def pairs(numbers: list[float]) -> list[tuple[float, float]]:
    return list(itertools.pairwise(numbers))


@processes
@pytest.mark.parametrize(
    ("sampler", "formula"),
    [
        (DDIM(steps=7), angles),
        (DDIM(steps=30, schedule="cosine"), angles),
        (Heun(steps=9, order=1), angles),
        (DPMSolverPP(steps=6, order=1), angles),
        (Ancestral(steps=40), posterior),
        (Ancestral(steps=1000, schedule="linear"), posterior),
        (DDIM(steps=12, eta=1), posterior),
    ],
    ids=lambda value: value.__name__ if callable(value) else repr(value),
)
def test_the_spread_is_that_of_the_closed_form(
    sampler: Sampler, formula: Any, process: Process
) -> None:
    levels = levels_of(sampler, process)
    result = spread(sampler, process, 0.5)
    assert result is not None
    assert result.standard_error == 0
    assert result.whole == pytest.approx(formula(levels, 0.5), rel=1e-4)
    assert result.detail == pytest.approx(formula(levels, 0.1), rel=1e-4)


@pytest.mark.parametrize(
    "sampler",
    [Heun(clip=None), Heun(churn=8, clip=None), DPMSolverPP(order=3, clip=None), DDIM(eta=0.4)],
    ids=repr,
)
def test_what_is_taken_apart_is_what_many_pixels_have(sampler: Sampler) -> None:
    exact, estimate = (way(sampler, EDM(sigma_data=0.2), 0.2) for way in (taken_apart, drawn))
    allowed = 5 * estimate.standard_error
    assert estimate.whole == pytest.approx(exact.whole, abs=allowed)
    assert estimate.detail == pytest.approx(exact.detail, abs=allowed)
    assert estimate.gain == pytest.approx(exact.gain, rel=allowed)


def test_pixels_that_a_sampler_draws_are_others_than_those_that_it_starts_from() -> None:
    """Both were the same numbers, and the estimate 0.66 for 0.47."""
    process, sampler = EDM(sigma_max=1), Ancestral(steps=2, clip=None)
    exact, estimate = (way(sampler, process, 0.5) for way in (taken_apart, drawn))
    assert estimate.whole == pytest.approx(exact.whole, abs=5 * estimate.standard_error)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_errors_grow_as_the_steps_say(prediction: Any) -> None:
    """Two steps of Euler: an error e of x0 at the first is (1 - b / a) e in x at the second."""
    process, std = DDPM(prediction=prediction), 0.5
    sampler = Heun(steps=2, order=1, sigma_min=3.0)
    a, b, _ = levels_of(sampler, process)
    levels = torch.tensor([a, b], dtype=torch.float64)
    first, second = process.coefficients(levels).out.tolist()
    expected = math.hypot((1 - b / a) * first * std**2 / (std**2 + b**2), second) / std
    result = spread(sampler, process, std)
    assert result is not None
    assert result.gain == pytest.approx(expected, rel=1e-6)


def test_a_clamp_is_left_out() -> None:
    clamped, free = (spread(Ancestral(steps=30, clip=each), DDPM(), 0.5) for each in (0.01, None))
    assert clamped == free


def test_the_standard_deviation_is_that_which_the_process_says() -> None:
    recipe = tiny("process={name: edm, sigma_data: 0.3}")
    result = arm_spread(recipe, recipe.arm("self_1.0"))
    assert result is not None
    assert result.data == 0.3


def test_it_is_computed_once_for_each_process_and_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    one = spread(DDIM(steps=31), DDPM(), 0.5)
    monkeypatch.setattr(spreads, "tried", None)
    assert spread(DDIM(steps=31), DDPM(), 0.5) is one


# Samplers of others


class Own(Sampler):
    """DDIM at eta 1 that draws its noise image by image, as libraries do."""

    name: ClassVar[str] = "own"
    steps: int = 40

    @property
    def nfe(self) -> int:
        return self.steps

    def sample(self, denoise: Denoise, noise: Tensor, draws: Draws) -> Tensor:
        ratio = denoise.sigma_min / denoise.sigma_max
        levels = [
            denoise.sigma_max * ratio ** (step / (self.steps - 1)) for step in range(self.steps)
        ]
        x = levels[0] * noise
        for sigma, target in itertools.pairwise([*levels, 0.0]):
            keep = target**2 / sigma**2
            fresh = [torch.randn(x.shape[1:], generator=draws[i]) for i in range(len(x))]
            x0 = denoise(x, sigma)
            x = x0 + keep * (x - x0) + target * math.sqrt(1 - keep) * torch.stack(fresh)
        return x


class Broken(Own):
    """Raises whatever it is asked."""

    name: ClassVar[str] = "broken"

    def sample(self, denoise: Denoise, noise: Tensor, draws: Draws) -> Tensor:
        raise RuntimeError("no images of this size")


class Diverging(Own):
    """Multiplies what it gets until there is no number left."""

    name: ClassVar[str] = "diverging"

    def sample(self, denoise: Denoise, noise: Tensor, draws: Draws) -> Tensor:
        for _ in range(self.steps):
            denoise(noise, 1.0)
        return noise * math.inf


def test_a_sampler_that_draws_by_itself_is_estimated_with_a_standard_error() -> None:
    result = spread(Own(), EDM(), 0.5)
    assert result is not None
    ratio = (0.002 / 80) ** (1 / 39)
    levels = [*(80 * ratio**step for step in range(40)), 0.0]
    assert 0 < result.standard_error < 0.02
    allowed = 4 * result.standard_error
    assert result.whole == pytest.approx(posterior(levels, 0.5), abs=allowed)
    assert result.detail == pytest.approx(posterior(levels, 0.1), abs=allowed)


def third_party(sampler: type[Sampler]) -> Recipe:
    toys = registry()
    toys.add(Provider("others"), [sampler])
    source = parse(RECIPE, "r.yaml")
    source.set([f"sampler={sampler.name}"])
    return validate(source, toys)


def test_a_sampler_that_raises_is_no_fault_and_no_claim_is_made() -> None:
    recipe = third_party(Broken)
    assert arm_spread(recipe, recipe.arm(recipe.baseline)) is None
    assert not [each for each in warnings(recipe) if "Gaussian" in each.reason]


def test_a_sampler_that_diverges_is_warned_about() -> None:
    recipe = third_party(Diverging)
    [told] = [each for each in warnings(recipe) if "Gaussian" in each.reason]
    assert "inf of its spread" in told.reason


# What is said before a run


def tiny(*sets: str) -> Recipe:
    source = read(TINY)
    source.set(["sampler=dpmpp"])
    source.set(sets)
    return validate(source, installed())


def said(*sets: str) -> list[str]:
    return [str(each) for each in warnings(tiny(*sets)) if "sampl" in str(each.location)]


def test_a_sampler_that_keeps_the_spread_is_not_warned_about() -> None:
    assert said() == []
    assert said("process={name: ddpm, prediction: eps, schedule: cosine}") == []


def test_a_wrong_spread_is_warned_about_once_with_what_would_be_right() -> None:
    [told] = said("sampler={name: heun, steps: 18, sigma_max: 20000}")
    assert told.startswith("sampler: heun (steps: 18, sigma_max: 20000.0) under process 'ddpm': ")
    assert "(standard deviation 0.5) would have 1.40" in told
    assert "with 'sigma_max: null" in told


def test_a_start_that_is_not_at_fault_is_left_alone() -> None:
    [told] = said("sampler={name: heun, steps: 18, sigma_max: 80}", "process=edm")
    assert "; with 'schedule: logistic' they would be 1.0" in told
    assert "error" not in told


def test_the_remedy_is_right() -> None:
    [told] = said("sampler={name: ddim, steps: 15}")
    assert "with 'steps: 60' they would be 0.970 and 0.957" in told
    assert said("sampler={name: ddim, steps: 60}") == []


def test_a_sampler_of_one_arm_is_warned_about_there() -> None:
    told = said("arms.self_1.0.sampler={name: ddim, steps: 10}")
    assert any(line.startswith("arms.self_1.0.sampler: ddim (steps: 10) under") for line in told)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_predicted_noise_is_warned_about_where_a_step_leaves_much_noise_behind(
    schedule: str,
) -> None:
    """x0 = x - sigma * eps: at sigma 20,291 an error of 1 % is 203 times the range of images, and
    ten steps of the cosine schedule end the first at 6."""
    eps = "process={name: ddpm, prediction: eps, schedule: cosine}"
    first = DDPM().sigma_range[1]
    sampler = f"sampler={{name: dpmpp, steps: 10, schedule: {schedule}, sigma_max: {first}}}"
    [told] = said(eps, sampler)
    assert "an error of 1 % in what the network predicts would be " in told
    assert "that error would be " in told
    assert not [line for line in said(sampler) if "an error of 1 %" in line]


# The recipes that come with fw


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipes_spread_is_right_or_its_header_says_what_it_is(
    path: Path, record_property: Any
) -> None:
    recipe = load(path)
    header = path.read_text(encoding="utf-8").split("\nfw: 1\n")[0]
    for name in recipe.arms:
        result = arm_spread(recipe, recipe.arm(name))
        assert result is not None
        record_property(name, f"{result.whole:.3f} {result.detail:.3f}")
        off = max(abs(result.whole - 1), abs(result.detail - 1))
        assert fits(result) == (off <= TOLERANCE)
        if not fits(result):
            assert "Gaussian" in header
            assert f"{result.whole:.3f}" in header
            assert f"{result.detail:.3f}" in header
