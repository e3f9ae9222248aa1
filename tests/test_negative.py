"""Negative guidance: away from one class, affine in the scale, and without effect on images of
that class."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
import toys
from exact_gaussians import Gaussians, noisy
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.guided import Guided
from fw.core.errors import RecipeError, StageFailed
from fw.core.kinds import Annotator
from fw.core.kinds.boundaries import check_guidance
from fw.core.randomness import Draws
from fw.core.recipe.loading import validate
from fw.core.recipe.source import parse
from fw.core.testing import check, tiny
from fw.core.types import ConditionSpec
from fw.plugins.guidance.cfg import CFG
from fw.plugins.guidance.negative import Negative
from fw.plugins.samplers.ddim import DDIM
from fw.registry import Provider, Registry

few = settings(deadline=None, max_examples=25)
SIGMAS, SCALES, CLASSES = st.floats(0.05, 40), st.floats(0, 5), st.integers(0, 2)


def guided(
    modes: list[Negative], asked: Tensor, model: Gaussians | NetworkDenoiser | None = None
) -> Guided:
    return Guided(model or Gaussians(), modes, asked, 0.002, 80.0)


def test_it_keeps_to_the_contract_of_guidance() -> None:
    check(Negative(condition=1))
    check(Negative(condition=0, scale=2.5, interval=(0.1, 3.0)))


@given(SIGMAS, SCALES, CLASSES)
@few
def test_the_prediction_is_that_of_negative_prompts(sigma: float, scale: float, away: int) -> None:
    x, asked = noisy(sigma)
    good, worse = Gaussians()(x, sigma, asked), Gaussians()(x, sigma, torch.full_like(asked, away))
    found = guided([Negative(condition=away, scale=scale)], asked)(x, sigma)
    torch.testing.assert_close(found, worse + scale * (good - worse), rtol=0, atol=1e-12)


@given(SIGMAS, CLASSES)
@few
def test_scale_one_is_off_and_free_and_another_costs_one_evaluation(
    sigma: float, away: int
) -> None:
    x, asked = noisy(sigma)
    for scale, evaluations in ((1.0, 1), (2.0, 2)):
        model = Gaussians()
        found = guided([Negative(condition=away, scale=scale)], asked, model)(x, sigma)
        assert torch.equal(found, Gaussians()(x, sigma, asked)) == (scale == 1.0)
        assert model.asked == evaluations


@given(SIGMAS, SCALES, SCALES, st.floats(0, 1), CLASSES)
@few
def test_the_prediction_is_affine_in_the_scale(
    sigma: float, first: float, last: float, share: float, away: int
):
    x, asked = noisy(sigma)
    between = first + share * (last - first)
    start, middle, end = (
        guided([Negative(condition=away, scale=scale)], asked)(x, sigma)
        for scale in (first, between, last)
    )
    torch.testing.assert_close(middle, start + share * (end - start), rtol=0, atol=1e-12)


@given(SIGMAS, CLASSES)
@few
def test_only_images_of_other_classes_are_steered(sigma: float, away: int) -> None:
    x, asked = noisy(sigma)
    plain, found = (
        guided(modes, asked)(x, sigma) for modes in ([], [Negative(condition=away, scale=3.0)])
    )
    changed = (found != plain).flatten(1).any(dim=1)
    assert torch.equal(changed, asked != away)


def test_of_a_network_too_only_images_of_other_classes_are_steered() -> None:
    model, x, asked = tiny.denoiser(), tiny.noisy(6, 0.5), torch.arange(6) % 3
    with torch.inference_mode():
        plain, found = (
            guided(modes, asked, model)(x, 0.5)
            for modes in ([], [Negative(condition=1, scale=3.0)])
        )
    changed = (found - plain).flatten(1).abs().amax(dim=1) > 1e-5
    assert torch.equal(changed, asked != 1)


def test_listed_twice_it_steers_away_from_the_mean_of_the_classes() -> None:
    x, asked = noisy(1.0)
    good = Gaussians()(x, 1.0, asked)
    worse = sum(Gaussians()(x, 1.0, torch.full_like(asked, away)) for away in (0, 2)) / 2
    found = guided([Negative(condition=0, scale=2.0), Negative(condition=2, scale=2.0)], asked)(
        x, 1.0
    )
    torch.testing.assert_close(found, good + 2 * (good - worse), rtol=0, atol=1e-12)


def test_samples_move_away_from_the_class() -> None:
    """Along the line from the class's mean to that of the class asked for, they go further the
    larger the scale."""
    noise = torch.randn(
        100, 1, 4, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64
    )
    generators = Draws("negative", rows=range(100))
    asked = torch.ones(100, dtype=torch.long)
    means = Gaussians().known(
        torch.zeros(2, 1, 4, 4, dtype=torch.float64), 1e6, torch.tensor([0, 1])
    )
    line = (means[1] - means[0]).flatten()
    places = []
    for scale in (1.0, 1.5, 2.0, 3.0):
        denoise = guided([Negative(condition=0, scale=scale)], asked)
        samples = DDIM(steps=20, clip=None).sample(denoise, noise, generators)
        places.append(float(((samples - means[0]).flatten(1) @ line).mean() / line.square().sum()))
    assert places == sorted(places)
    assert places[0] == pytest.approx(1, abs=0.1)
    assert places[-1] > 1.5


def test_a_class_that_there_is_not_ends_the_stage_in_one_sentence() -> None:
    spec = ConditionSpec("class", 3)
    check_guidance([Negative(condition=2)], spec)
    for away in (3, 30):
        told = f"^guidance negative: there is no class {away}: the arm has 3, counted from 0$"
        with pytest.raises(StageFailed, match=told):
            check_guidance([CFG(), Negative(condition=away)], spec)


def test_a_class_below_zero_and_a_missing_one_are_refused() -> None:
    for fields in ({"condition": -1}, {}):
        with pytest.raises(ValidationError):
            Negative.model_validate(fields)


class Directions(Annotator):
    """Conditions that are vectors."""

    name: ClassVar[str] = "directions"
    form: ClassVar[str] = "vector"

    def annotate(self, data: object, job: object) -> None:  # type: ignore[override]
        raise NotImplementedError


@pytest.mark.parametrize(
    ("annotator", "needs"),
    [
        ("null", r"an annotator \(this arm has none\)"),
        ("directions", "an annotator whose conditions are classes"),
    ],
)
def test_it_needs_conditions_that_are_classes(annotator: str, needs: str) -> None:
    found: Registry = toys.registry()
    found.add(Provider("negative"), [Negative, CFG, Directions])
    arm = (
        f"\n  a: {{annotator: {annotator}, guidance: {{name: negative, scale: 2, condition: 1}}}}\n"
    )
    with pytest.raises(RecipeError, match=f"arms.a.guidance: guidance 'negative' needs {needs}"):
        validate(parse(toys.RECIPE.rstrip() + arm, "r.yaml"), found)
