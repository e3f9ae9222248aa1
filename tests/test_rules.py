"""The rules: APG and rescaled guidance, against closed forms, diffusers, and plain guidance
where they are off."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance
from diffusers.guiders.guider_utils import rescale_noise_cfg
from exact_gaussians import Gaussians, noisy
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from fw.core.diffusion.guided import Guided
from fw.core.errors import RecipeError
from fw.core.kinds import Rule, Steering
from fw.core.randomness import Draws
from fw.core.recipe.loading import load
from fw.plugins.guidance.apg import APG
from fw.plugins.guidance.cfg import CFG
from fw.plugins.guidance.rescale import Rescale
from fw.plugins.samplers.ddim import DDIM
from fw.plugins.samplers.heun import Heun

few = settings(deadline=None, max_examples=25)
SIGMAS, SCALES = st.floats(0.05, 40), st.floats(0, 8)
NOTHING = APG(momentum=0, norm=None, eta=1), Rescale(phi=0)
LEVELS = (8.0, 3.0, 1.0, 0.3)

each_that_is_off = pytest.mark.parametrize("rule", NOTHING, ids=lambda rule: rule.name)
each_that_is_on = pytest.mark.parametrize(
    "rule", [APG(norm=0.3), Rescale()], ids=lambda rule: rule.name
)


def guided(guidance: Sequence[Steering], asked: Tensor, model: Gaussians | None = None) -> Guided:
    return Guided(model or Gaussians(), guidance, asked, 0.002, 80.0)


def both(sigma: float) -> tuple[Tensor, Tensor]:
    """The conditional and the unconditional prediction."""
    x, asked = noisy(sigma)
    return Gaussians()(x, sigma, asked), Gaussians()(x, sigma)


def lengths(images: Tensor) -> Tensor:
    return images.flatten(1).norm(dim=1)


def products(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).flatten(1).sum(dim=1)


def deviations(images: Tensor) -> Tensor:
    return images.flatten(1).std(dim=1)


# Where they are off


@each_that_is_off
@given(sigma=SIGMAS, scale=SCALES)
@few
def test_a_rule_whose_fields_say_nothing_changes_no_bit(
    rule: Rule, sigma: float, scale: float
) -> None:
    x, asked = noisy(sigma)
    found, plain = (
        guided(modes, asked)(x, sigma) for modes in ([CFG(scale=scale), rule], [CFG(scale=scale)])
    )
    assert torch.equal(found, plain)


@each_that_is_on
def test_where_no_mode_is_active_a_rule_changes_no_bit_and_remembers_nothing(rule: Rule) -> None:
    x, asked = noisy(0.5)
    for mode in (CFG(scale=1.0), CFG(scale=3.0, interval=(1.0, 2.0))):
        denoise = guided([mode, rule], asked)
        assert torch.equal(denoise(x, 0.5), guided([], asked)(x, 0.5))
        assert denoise.memory == {}


@each_that_is_on
@given(sigma=st.floats(0.2, 10), scale=st.floats(1.5, 8))
@few
def test_a_rule_that_is_on_changes_guidance_at_no_price(
    rule: Rule, sigma: float, scale: float
) -> None:
    x, asked = noisy(sigma)
    model = Gaussians()
    found = guided([CFG(scale=scale), rule], asked, model)(x, sigma)
    assert model.asked == 2
    assert not torch.allclose(found, guided([CFG(scale=scale)], asked)(x, sigma), atol=1e-6)


# APG


@given(SIGMAS, SCALES, st.floats(0, 2))
@few
def test_apg_keeps_what_is_orthogonal_and_eta_of_what_is_parallel(
    sigma: float, scale: float, eta: float
) -> None:
    cond, uncond = both(sigma)
    x, asked = noisy(sigma)
    update = guided([CFG(scale=scale), APG(momentum=0, eta=eta)], asked)(x, sigma) - cond
    plain = (scale - 1) * (cond - uncond)
    along = products(plain, cond) / lengths(cond)
    torch.testing.assert_close(
        products(update, cond) / lengths(cond), eta * along, rtol=1e-9, atol=1e-11
    )
    torch.testing.assert_close(lengths(update) ** 2, lengths(plain) ** 2 - (1 - eta**2) * along**2)


@given(SIGMAS, st.floats(0.01, 3))
@few
def test_apg_shortens_differences_to_the_norm_and_leaves_shorter_ones(
    sigma: float, norm: float
) -> None:
    cond, uncond = both(sigma)
    found = APG(momentum=0, norm=norm, eta=1).direction(cond, cond - uncond, {})
    torch.testing.assert_close(lengths(found), lengths(cond - uncond).clamp(max=norm))
    torch.testing.assert_close(
        products(found, cond - uncond), lengths(found) * lengths(cond - uncond)
    )
    short = lengths(cond - uncond) < norm * (1 - 1e-9)
    assert torch.equal(found[short], (cond - uncond)[short])


@given(st.floats(-0.95, 0.95))
@few
def test_apgs_momentum_is_a_geometric_sum_over_levels_and_each_mode_has_its_own(
    momentum: float,
) -> None:
    rule, memory = APG(momentum=momentum, eta=1), dict[str, Tensor]()
    differences = [cond - uncond for cond, uncond in map(both, LEVELS)]
    for level, sigma in enumerate(LEVELS):
        expected = sum(momentum ** (level - past) * differences[past] for past in range(level + 1))
        found = rule.direction(both(sigma)[0], differences[level], memory)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    x, asked = noisy(1.0)
    twice, once = (
        guided([CFG(scale=2.0), rule, CFG(scale=2.0)], asked),
        guided([CFG(scale=3.0), rule], asked),
    )
    for sigma in LEVELS:
        torch.testing.assert_close(twice(x, sigma), once(x, sigma), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "rule", [APG(), APG(momentum=-0.75, norm=0.4, eta=0.2), APG(momentum=0.3, norm=1.0)], ids=str
)
@pytest.mark.parametrize("scale", [0.0, 1.5, 4.0])
def test_apg_is_diffusers_on_x0(rule: APG, scale: float) -> None:
    """Its `original formulation` adds w - 1 times the update to the conditional prediction, as
    the paper does."""
    buffer = MomentumBuffer(rule.momentum)
    _, asked = noisy(1.0)
    ours = guided([CFG(scale=scale), rule], asked)
    for sigma in LEVELS:
        cond, uncond = both(sigma)
        theirs = normalized_guidance(
            cond, uncond, scale - 1, buffer, rule.eta, rule.norm or 0.0, True
        )
        torch.testing.assert_close(ours(noisy(sigma)[0], sigma), theirs, rtol=1e-9, atol=1e-9)


def test_apg_on_predictions_of_noise_would_be_something_else() -> None:
    sigma, scale = 1.0, 4.0
    x, asked = noisy(sigma)
    cond, uncond = ((x - each) / sigma for each in both(sigma))
    theirs = x - sigma * normalized_guidance(cond, uncond, scale - 1, None, 0.0, 0.0, True)
    ours = guided([CFG(scale=scale), APG(momentum=0)], asked)(x, sigma)
    assert lengths(theirs - ours).mean() > 0.1 * lengths(ours - both(sigma)[0]).mean()


def test_apg_saturates_less_than_plain_guidance_at_a_high_scale() -> None:
    """Samples of a class keep to its centre, from which plain guidance drives them away."""
    noise = torch.randn(
        90, 1, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    generators = Draws("rules", rows=range(90))
    asked = torch.arange(90) % 3
    contrast = {}
    lists: dict[str, list[Steering]] = {
        "none": [],
        "plain": [CFG(scale=8.0)],
        "projected": [CFG(scale=8.0), APG(momentum=0)],
        "bounded": [CFG(scale=8.0), APG(momentum=0, norm=0.1, eta=1)],
    }
    for name, modes in lists.items():
        samples = DDIM(steps=20, clip=None).sample(guided(modes, asked), noise, generators)
        contrast[name] = float(lengths(samples).mean())
    assert contrast["plain"] > 1.2 * contrast["none"]
    assert contrast["projected"] < contrast["plain"]
    assert contrast["bounded"] < contrast["plain"]


def test_momentum_begins_anew_with_every_batch() -> None:
    x, asked = noisy(1.0)
    noise, generators = x.float(), Draws("rules", rows=range(len(x)))
    first, again = (
        Heun(steps=4).sample(guided([CFG(scale=3.0), APG()], asked), noise, generators)
        for _ in range(2)
    )
    assert torch.equal(first, again)
    without = Heun(steps=4).sample(
        guided([CFG(scale=3.0), APG(momentum=0)], asked), noise, generators
    )
    assert not torch.allclose(first, without, atol=1e-4)


# Rescale


@given(SIGMAS, SCALES, st.floats(0, 1))
@few
def test_rescaling_is_the_papers_equation_and_diffusers_on_x0(
    sigma: float, scale: float, phi: float
) -> None:
    cond, uncond = both(sigma)
    x, asked = noisy(sigma)
    found = guided([CFG(scale=scale), Rescale(phi=phi)], asked)(x, sigma)
    plain = cond if scale == 1 else uncond + scale * (cond - uncond)
    torch.testing.assert_close(found, rescale_noise_cfg(plain, cond, phi), rtol=1e-9, atol=1e-9)
    shares = phi * deviations(cond) + (1 - phi) * deviations(plain)
    torch.testing.assert_close(deviations(found), shares, rtol=1e-9, atol=1e-9)


@given(st.floats(0.2, 10))
@few
def test_rescaled_guidance_is_not_affine_in_the_scale_and_plain_guidance_is(sigma: float) -> None:
    x, asked = noisy(sigma)

    def bend(*rules: Rule) -> float:
        low, middle, high = (
            guided([CFG(scale=scale), *rules], asked)(x, sigma) for scale in (2.0, 5.0, 8.0)
        )
        return float((middle - (low + high) / 2).abs().max())

    assert bend() < 1e-12
    assert bend(APG(momentum=0)) < 1e-12
    assert bend(Rescale(phi=1.0)) > 1e-3


@pytest.mark.parametrize(("sigma", "agree"), [(1e5, True), (0.5, False)])
def test_rescaling_x0_is_rescaling_v_where_there_is_nothing_but_noise(
    sigma: float, agree: bool
) -> None:
    x, asked = noisy(1.0)
    x = x * sigma
    cond, uncond = Gaussians()(x, sigma, asked), Gaussians()(x, sigma)
    scaled, root = (
        x / (1 + sigma**2) ** 0.5,
        (1 + sigma**2) ** 0.5,
    )  # alpha = 1 / root, and sigma / root beside it

    def v(x0: Tensor) -> Tensor:
        return ((x - x0) / sigma - sigma * x0) / root

    plain = uncond + 4 * (cond - uncond)
    theirs = scaled / root - sigma / root * rescale_noise_cfg(v(plain), v(cond), 0.7)
    ours = Rescale().result(cond, plain)
    gap = float(lengths(theirs - ours).max() / lengths(plain).max())
    assert gap < 1e-3 if agree else gap > 0.02


def test_rescaling_keeps_an_image_without_contrast() -> None:
    good, flat = noisy(1.0)[0], torch.full((9, 1, 4, 4), 0.3)
    for one, other in ((good, flat.double()), (flat, flat)):
        assert torch.equal(Rescale().result(one, other), other)


# What is refused


@pytest.mark.parametrize(
    ("rule", "fields"),
    [
        *(
            (APG, {"momentum": 1.0}),
            (APG, {"momentum": -1.0}),
            (APG, {"norm": 0.0}),
            (APG, {"eta": -0.1}),
        ),
        *((Rescale, {"phi": -0.1}), (Rescale, {"phi": 1.1})),
    ],
)
def test_fields_that_mean_nothing_are_refused(rule: type[Rule], fields: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        rule.model_validate(fields)


# In a recipe


@pytest.mark.parametrize(
    ("guidance", "told"),
    [
        ("apg", "a rule puts guidance modes together, and there is none; name one beside it"),
        ("[{name: pag, scale: 2}, apg, apg]", "rule 'apg' is listed twice; take one away"),
    ],
)
def test_a_rule_without_a_mode_and_a_rule_that_is_listed_twice_are_refused(
    guidance: str, told: str
) -> None:
    zoo = Path(str(files("fw.recipes"))) / "guidance_zoo.yaml"
    with pytest.raises(RecipeError) as caught:
        load(zoo, [f"arms={{unconditional: {{annotator: null, guidance: {guidance}}}}}"])
    [found] = caught.value.problems
    assert found.endswith(f"arms.unconditional.guidance: {told}")
