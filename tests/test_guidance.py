"""The guidance rule, on a mixture of two Gaussians whose conditional and unconditional denoisers
are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.guided import Guided
from fw.core.diffusion.pixels import per_image
from fw.core.kinds import Attend, Guidance, Move
from fw.core.randomness import Draws
from fw.plugins.guidance.cfg import CFG
from fw.plugins.guidance.self_guidance import SelfGuidance
from fw.plugins.processes.ddpm import DDPM
from fw.plugins.processes.edm import EDM
from fw.plugins.processes.flow import Flow
from fw.plugins.samplers.ddim import DDIM
from fw.plugins.samplers.ddpm import Ancestral
from fw.plugins.samplers.heun import Heun

MEAN, STD = 0.6, 0.2
few = settings(deadline=None, max_examples=30)


def mixture(x: Tensor, sigma: Tensor | float, condition: Tensor | None) -> Tensor:
    """E[x0 | x, c] for pixels in N(-MEAN, STD^2) (class 0) or N(MEAN, STD^2) (class 1); without
    c, half each."""
    variance = STD**2 + sigma**2
    centre = MEAN * (
        torch.tanh(x * MEAN / variance) if condition is None else per_image(condition * 2.0 - 1)
    )
    return (STD**2 * x + sigma**2 * centre) / variance


class Mixture:
    """The exact denoiser; counts how often it is asked with and without a condition."""

    def __init__(self) -> None:
        self.asked = {"with": 0, "without": 0}

    def __call__(
        self, x: Tensor, sigma: float, condition: Tensor | None = None, attend: Attend | None = None
    ) -> Tensor:
        self.asked["without" if condition is None else "with"] += 1
        return mixture(x, sigma, condition)

    def layers(self, x: Tensor) -> tuple[str, ...]:
        return ()

    def logits(self, x: Tensor, sigma: float) -> Tensor:
        raise NotImplementedError

    def steered(self, x: Tensor, sigma: float, move: Move) -> Tensor:
        raise NotImplementedError


class MixtureNetwork(nn.Module):
    """The same knowledge as a network that predicts eps, v, x0 or the velocity at one noise
    level."""

    def __init__(self, predicts: str, sigma: float):
        super().__init__()
        self.predicts, self.sigma = predicts, sigma

    def forward(
        self, x: Tensor, noise: Tensor, condition: Tensor | None, dropped: None, attend: None
    ) -> Tensor:
        sigma = self.sigma
        x = x * (1 + sigma if self.predicts == "velocity" else math.hypot(1, sigma))
        x0 = mixture(x, sigma, condition)
        eps = (x - x0) / sigma
        return {
            "eps": eps,
            "x0": x0,
            "velocity": eps - x0,
            "v": (eps - sigma * x0) / math.hypot(1, sigma),
        }[self.predicts]


class Shrunk(Guidance):
    """Another mode, with its own idea of what is worse."""

    name: ClassVar[str] = "shrunk"

    def worse(
        self, model: object, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor
    ) -> Tensor:
        return good / 2


def guided(modes: Sequence[Guidance], model: Mixture | NetworkDenoiser | None = None) -> Guided:
    return Guided(model or Mixture(), modes, CLASSES, 0.01, 80.0)


CLASSES = torch.tensor([0, 1, 1])
X = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
either = pytest.mark.parametrize("kind", [CFG, SelfGuidance])


@either
@given(st.floats(0.01, 80), st.floats(0, 10))
@few
def test_the_guided_prediction_extrapolates_from_the_unconditional_to_the_conditional(
    kind, sigma, scale
):
    cond, uncond = mixture(X, sigma, CLASSES), mixture(X, sigma, None)
    found = guided([kind(scale=scale)])(X, sigma)
    torch.testing.assert_close(found, uncond + scale * (cond - uncond), rtol=0, atol=1e-12)


@either
@given(st.floats(0.01, 80), st.floats(0, 5))
@few
def test_the_papers_own_weight_is_one_less_than_the_scale(kind, sigma, w):
    cond, uncond = mixture(X, sigma, CLASSES), mixture(X, sigma, None)
    found = guided([kind(scale=1 + w)])(X, sigma)
    torch.testing.assert_close(found, (1 + w) * cond - w * uncond, rtol=0, atol=1e-12)


@either
@pytest.mark.parametrize(
    "sampler", [DDIM(steps=5), Ancestral(steps=5), Heun(steps=5, churn=1)], ids=lambda s: s.name
)
def test_scale_one_changes_no_bit_and_asks_the_model_no_more(kind, sampler):
    samples, models = [], []
    for modes in ([], [kind()], [kind(scale=1.0), kind(scale=1.0)]):
        models.append(Mixture())
        generators = Draws("guidance", rows=range(3))
        samples.append(sampler.sample(guided(modes, models[-1]), X.float(), generators))
    assert torch.equal(samples[0], samples[1])
    assert torch.equal(samples[0], samples[2])
    assert [model.asked for model in models] == [{"with": sampler.nfe, "without": 0}] * 3


@either
def test_guidance_costs_one_evaluation_a_step_and_leaves_the_samplers_noise_alone(kind):
    model = Mixture()
    generators = Draws("guidance", rows=range(3))
    Ancestral(steps=5).sample(guided([kind(scale=2.0)], model), X.float(), generators)
    assert model.asked == {"with": 5, "without": 5}
    plain = Draws("guidance", rows=range(3))
    Ancestral(steps=5).sample(guided([]), X.float(), plain)
    assert torch.equal(generators.normal(2), plain.normal(2))


@given(st.floats(0.01, 80), st.floats(0, 4), st.floats(0, 4), st.floats(0, 1))
@few
def test_the_prediction_is_affine_in_the_scale(sigma, first, last, share):
    between = first + share * (last - first)
    start, middle, end = (guided([CFG(scale=scale)])(X, sigma) for scale in (first, between, last))
    torch.testing.assert_close(middle, start + share * (end - start), rtol=0, atol=1e-12)


@given(st.floats(0.02, 50), st.floats(0, 5))
@few
def test_guidance_is_the_same_whatever_the_network_predicts(sigma, scale):
    networks = {
        "eps": DDPM(prediction="eps"),
        "v": DDPM(prediction="v", schedule="linear"),
        "x0": DDPM(prediction="x0"),
        "velocity": Flow(),
    }
    expected = guided([CFG(scale=scale)])(X, sigma)
    for predicts, process in networks.items():
        model = NetworkDenoiser(MixtureNetwork(predicts, sigma), process)
        torch.testing.assert_close(
            guided([CFG(scale=scale)], model)(X, sigma), expected, rtol=1e-7, atol=1e-7
        )
        assert model.evaluations == (1 if scale == 1 else 2)


@given(st.floats(0.01, 80), st.floats(0, 4), st.floats(0, 4))
@few
def test_the_pushes_of_several_modes_add_up(sigma, first, second):
    good = guided([])(X, sigma)
    alone = [guided([mode])(X, sigma) - good for mode in (CFG(scale=first), Shrunk(scale=second))]
    both = guided([CFG(scale=first), Shrunk(scale=second)])(X, sigma)
    torch.testing.assert_close(both - good, alone[0] + alone[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("sigma", "acts"), [(0.2, False), (0.21, True), (1.6, True), (1.61, False)]
)
def test_outside_its_interval_guidance_is_off_and_free(sigma, acts):
    model = Mixture()
    found = guided([CFG(scale=3.0, interval=(0.2, 1.6))], model)(X, sigma)
    expected = guided([CFG(scale=3.0)] if acts else [])(X, sigma)
    assert torch.equal(found, expected)
    assert model.asked["without"] == acts


def test_guidance_moves_uncertain_images_towards_the_mean_of_their_class():
    """Where x tells nothing, the unconditional prediction is 0 and the guided one is `scale`
    times the class mean."""
    x = torch.zeros(2, 1, 1, 1, dtype=torch.float64)
    for sigma in (0.5, 2.0, 20.0):
        towards = sigma**2 * MEAN / (STD**2 + sigma**2)
        for scale in (0.0, 1.0, 1.5, 3.0):
            model = Guided(Mixture(), [CFG(scale=scale)], torch.tensor([0, 1]), 0.01, 80.0)
            expected = [-scale * towards, scale * towards]
            assert model(x, sigma).flatten().tolist() == pytest.approx(expected)


def test_guided_samples_lie_further_from_the_other_class():
    noise = torch.randn(200, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    generators = Draws("guidance", rows=range(200))
    means, spreads = [], []
    for scale in (0.0, 1.0, 2.0, 4.0):
        model = Guided(
            Mixture(), [CFG(scale=scale)], torch.ones(200, dtype=torch.long), 0.002, 80.0
        )
        samples = DDIM(steps=60, clip=None).sample(model, noise, generators)
        means.append(samples.mean().item())
        spreads.append(samples.std().item())
    assert means == sorted(means)
    assert means[0] == pytest.approx(0, abs=0.1)
    assert means[1] == pytest.approx(MEAN, abs=0.03)
    assert spreads[1] == pytest.approx(STD, abs=0.03)
    assert spreads[0] > 2 * spreads[1]


def test_an_edm_denoiser_is_guided_like_any_other():
    class Silent(nn.Module):
        def forward(self, x: Tensor, noise: Tensor, condition: Tensor | None, *_: object) -> Tensor:
            return torch.zeros_like(x) if condition is None else torch.ones_like(x)

    process = EDM(sigma_data=1.0)
    found = guided([CFG(scale=3.0)], NetworkDenoiser(Silent(), process))(X, 1.0)
    torch.testing.assert_close(found, X / 2 + 3.0 * torch.full_like(X, math.sqrt(0.5)))


def test_what_guidance_needs_is_said_in_capabilities():
    assert CFG().requires == {"conditions", "null"}
    assert SelfGuidance().requires == {"conditions", "null", "label_free"}


@pytest.mark.parametrize("interval", [(1.61, 0.19), (1.0, 1.0), (-1.0, 2.0)])
def test_an_interval_that_could_never_act_is_refused(interval):
    with pytest.raises(ValidationError, match="0 <= lo < hi"):
        CFG(scale=2, interval=interval)
