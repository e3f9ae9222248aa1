"""Classifier guidance: exact on Gaussians, trained as a sibling where the arm has no joint
model, refused elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import toys
from exact_gaussians import Gaussians, noisy
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn
from toys import Untracked

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.guided import Guided
from fw.core.errors import RecipeError
from fw.core.execution.local import run_here
from fw.core.execution.place import Place
from fw.core.kinds import Annotator, Sibling
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.randomness import Draws
from fw.core.recipe.loading import validate
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import parse
from fw.core.settings import Train
from fw.core.store.store import Store
from fw.core.templates.joint import Example as Joint
from fw.core.testing import check
from fw.plugins.guidance.cfg import CFG
from fw.plugins.guidance.classifier import ClassifierGuidance
from fw.plugins.processes.ddpm import DDPM
from fw.plugins.processes.edm import EDM
from fw.plugins.samplers.ddim import DDIM
from fw.registry import Component, Provider, Registry

few = settings(deadline=None, max_examples=25)
SIGMAS = (0.05, 0.3, 1.0, 4.0, 40.0)
SMALL = Joint(width=4, blocks=1)

ARMS = """
  own_1.0: {model: {name: example, width: 4, blocks: 1}, guidance: {name: classifier, scale: 1}}
  own_2.0: {model: {name: example, width: 4, blocks: 1}, guidance: {name: classifier, scale: 2}}
  beside_1.0: {guidance: {name: classifier, scale: 1, model: {name: example, width: 4, blocks: 1}}}
  beside_2.0: {guidance: {name: classifier, scale: 2, model: {name: example, width: 4, blocks: 1}}}
  beside_3.0: {guidance: {name: classifier, scale: 3, model: {name: example, width: 4, blocks: 1}}}
"""


class Directions(Annotator):
    """Conditions that are vectors."""

    name: ClassVar[str] = "directions"
    form: ClassVar[str] = "vector"

    def annotate(self, data: object, job: object) -> None:  # type: ignore[override]
        raise NotImplementedError


def registry() -> Registry:
    found = toys.registry()
    extra: list[type[Component]] = [ClassifierGuidance, CFG, Joint, Directions]
    found.add(Provider("classifier"), extra)
    return found


def recipe(arms: str) -> Recipe:
    return validate(parse(toys.RECIPE.rstrip() + arms, "r.yaml"), registry())


def guided(scale: float, asked: torch.Tensor, model: Gaussians) -> Guided:
    return Guided(model, [ClassifierGuidance(scale=scale)], asked, model.sigma_min, model.sigma_max)


@pytest.mark.parametrize(
    "mode", [ClassifierGuidance(scale=2.0), ClassifierGuidance(scale=1.5, model=SMALL)], ids=repr
)
def test_it_keeps_to_the_contract_of_guidance(mode: ClassifierGuidance) -> None:
    check(mode)


# The rule, where the truth is known


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_at_scale_2_an_unconditional_denoiser_is_the_conditional_one(
    sigma: float, inference: bool
) -> None:
    x, asked = noisy(sigma)
    model = Gaussians(told=False)
    with torch.inference_mode(inference):
        found = guided(2.0, asked.clone(), model)(x, sigma)
    torch.testing.assert_close(found, Gaussians()(x, sigma, asked), rtol=1e-9, atol=1e-9)
    assert model.asked == 2
    assert not found.requires_grad


@given(st.floats(0.05, 40), st.floats(0, 6))
@few
def test_the_papers_gradient_scale_is_one_less_and_the_rule_is_that_of_cfg_by_bayes(
    sigma: float, scale: float
) -> None:
    x, asked = noisy(sigma)
    cond, uncond = Gaussians()(x, sigma, asked), Gaussians()(x, sigma)
    found = guided(scale, asked, Gaussians(told=False))(x, sigma)
    torch.testing.assert_close(found, uncond + (scale - 1) * (cond - uncond), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_it_goes_uphill(sigma: float) -> None:
    """A step from the worse prediction to the good one makes the class likelier, one the other
    way less likely."""
    x, asked = noisy(sigma)
    model = Gaussians(told=False)
    good = model(x, sigma)
    step = good - ClassifierGuidance().worse(model, x, sigma, asked, good)
    before, after, back = (
        model.scores(at, sigma).log_softmax(dim=1).gather(1, asked[:, None])
        for at in (x, x + step / 1000, x - step / 1000)
    )
    unsure = before < -1e-6  # elsewhere float64 has no room above
    assert unsure.sum() >= 5
    assert (after > before)[unsure].all()
    assert (back < before)[unsure].all()


def test_mass_moves_to_the_class_as_the_scale_grows() -> None:
    count = 300
    noise = torch.randn(
        count, 1, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    generators = Draws("classifier", rows=range(count))
    asked = torch.full((count,), 2)
    model = Gaussians(told=False)
    shares = []
    for scale in (0.5, 1.0, 1.5, 2.0):
        with torch.inference_mode():
            samples = DDIM(steps=30, clip=None).sample(
                guided(scale, asked, model), noise, generators
            )
        shares.append(float((model.scores(samples, 0.01).argmax(dim=1) == 2).double().mean()))
    assert shares == sorted(shares)
    assert len(set(shares)) == 4
    assert shares[1] == pytest.approx(0.2, abs=0.08)  # unguided: its share of the mixture
    assert shares[3] > 0.97


class ExactLogits(nn.Module):
    """The mixture's logits as a network inside a process: it is given scale * x, as a trained
    one is."""

    def __init__(self, sigma: float, scale: float):
        super().__init__()
        self.sigma, self.scale = sigma, scale
        self.weight = nn.Parameter(torch.ones(()))

    def logits(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return self.weight * Gaussians().scores(x / self.scale, self.sigma)


@pytest.mark.parametrize("process", [DDPM(), EDM()], ids=lambda process: process.name)
def test_the_gradient_is_that_of_x_and_not_of_what_the_network_is_given_and_reaches_no_weight(
    process: DDPM | EDM,
) -> None:
    sigma = 1.3
    x, asked = noisy(sigma)
    scale = float(process.coefficients(torch.tensor([sigma], dtype=torch.float64)).scale)
    model = NetworkDenoiser(ExactLogits(sigma, scale), process)
    good = Gaussians()(x, sigma)
    found = good - ClassifierGuidance().worse(model, x, sigma, asked, good)
    torch.testing.assert_close(found, Gaussians()(x, sigma, asked) - good, rtol=1e-5, atol=1e-6)
    assert model.evaluations == 1
    assert model.network.weight.grad is None


# Which network recognises


def test_the_arms_own_joint_model_recognises_and_another_is_trained_once_for_all_scales() -> None:
    found = plan(recipe(ARMS))
    own, off, two, three = (
        found.arms[name] for name in ("own_2.0", "beside_1.0", "beside_2.0", "beside_3.0")
    )
    assert own.siblings == off.siblings == []
    assert two.siblings == three.siblings
    [recogniser] = two.siblings
    assert recogniser == own.train, "the same network on the same conditions is trained once"
    assert found.stages[recogniser].inputs == {"annotate": two.annotate}
    assert found.stages[recogniser].payload["train"] == found.stages[two.train].payload["train"]
    assert (own.nfe, off.nfe, two.nfe) == (4, 2, 4)


def test_a_model_that_is_the_arms_own_is_not_trained_again() -> None:
    train = Train(steps=7)
    mode = ClassifierGuidance(scale=2.0, model=SMALL)
    assert mode.sibling(SMALL, train) is None
    assert mode.sibling(Joint(width=8), train) == Sibling(SMALL, train)
    assert ClassifierGuidance(scale=2.0).sibling(SMALL, train) is None
    arm = "\n  a: {model: example, guidance: {name: classifier, scale: 2, model: example}}\n"
    assert plan(recipe(arm)).arms["a"].siblings == []


def test_a_run_trains_the_recogniser_to_recognise_guides_by_it_and_counts_its_evaluations(
    tmp_path: Path,
) -> None:
    found = plan(recipe(ARMS))
    store = executed(found, tmp_path / "store")
    nfe = {
        "own_1.0": 2,
        "own_2.0": 4,
        "beside_1.0": 2,
        "beside_2.0": 4,
        "beside_3.0": 4,
        "self_1.0": 2,
    }
    for name, evaluations in nfe.items():
        assert (
            json.loads((store.path(found.arms[name].sample) / "info.json").read_text())["nfe"]
            == evaluations
        )
    images = {name: (store.path(found.arms[name].sample) / "grid.png").read_bytes() for name in nfe}
    assert images["beside_1.0"] == images["self_1.0"]
    assert (
        len(
            {
                images[name]
                for name in ("own_1.0", "own_2.0", "beside_1.0", "beside_2.0", "beside_3.0")
            }
        )
        == 5
    )
    [recogniser] = found.arms["beside_2.0"].siblings
    assert "train/accuracy" in (store.path(recogniser) / "log.jsonl").read_text()
    assert (
        "train/accuracy"
        not in (store.path(found.arms["beside_2.0"].train) / "log.jsonl").read_text()
    )


def executed(found: Plan, folder: Path) -> Store:
    store = Store(folder)
    store.create()

    class Listener(Untracked):
        """Hears nothing."""

        def __getattr__(self, name: str) -> object:
            return lambda *words: None

    outcome = run_here(found, (), Place(folder, "cpu", 1, 20), Listener(), lambda: False)
    assert outcome.failed == {}
    return store


# What is refused


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        (
            "{guidance: {name: classifier, scale: 2}}",
            r"guidance 'classifier' needs a joint model and an annotator",
        ),
        (
            "{annotator: null, model: example, guidance: {name: classifier, scale: 2}}",
            r"guidance 'classifier' needs an annotator \(this arm has none\)",
        ),
        (
            "{annotator: null, guidance: {name: classifier, scale: 2, model: example}}",
            r"guidance 'classifier' needs an annotator \(this arm has none\)",
        ),
        (
            "{guidance: {name: classifier, scale: 2, model: linear}}",
            r"guidance\.model: backbone 'linear' is no Joint",
        ),
        (
            "{annotator: directions, guidance: {name: classifier, scale: 2, model: example}}",
            r"arms\.a\.guidance: backbone 'example' takes class conditions, not vector ones",
        ),
        (
            "{annotator: directions, model: example, guidance: {name: classifier, scale: 2}}",
            r"arms\.a\.model: backbone 'example' takes class conditions, not vector ones",
        ),
    ],
)
def test_an_arm_that_cannot_recognise_its_conditions_is_refused_when_the_recipe_is_checked(
    arm: str, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe(f"\n  a: {arm}\n")


def test_what_it_requires_depends_on_who_recognises() -> None:
    assert ClassifierGuidance().requires == {"conditions", "logits"}
    assert ClassifierGuidance(model=SMALL).requires == {"conditions"}
    with pytest.raises(ValidationError, match="expected the name of a backbone"):
        ClassifierGuidance(model=toys.Linear())
