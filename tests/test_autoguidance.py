"""Autoguidance: the worse network is trained as a stage of its own, shared, counted, and steered
away from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import toys
from pydantic import ValidationError
from toys import Untracked

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.guided import Guided
from fw.core.execution.local import run_here
from fw.core.execution.place import Place
from fw.core.kinds import Backbone
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.loading import validate
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import parse
from fw.core.settings import Train
from fw.core.store.store import Store
from fw.core.testing import check, tiny
from fw.plugins.backbones.unet import UNet
from fw.plugins.guidance.autoguidance import AutoGuidance
from fw.registry import Provider, Registry

ARMS = """
  auto_1.0: {annotator: null, guidance: {name: autoguidance, scale: 1}}
  auto_2.0: {annotator: null, guidance: {name: autoguidance, scale: 2}}
  auto_3.0: {annotator: null, guidance: {name: autoguidance, scale: 3}}
  twice:
    annotator: null
    guidance: [{name: autoguidance, scale: 2}, {name: autoguidance, scale: 2, trained: 0.5}]
"""


def registry() -> Registry:
    found = toys.registry()
    found.add(Provider("autoguidance"), [AutoGuidance])
    return found


def recipe(arms: str = ARMS) -> Recipe:
    return validate(parse(toys.RECIPE.rstrip() + arms, "r.yaml"), registry())


def test_it_keeps_to_the_contract_of_guidance() -> None:
    check(AutoGuidance(scale=2.0))
    check(AutoGuidance(scale=1.5, trained=1.0, model=tiny_unet()))


def tiny_unet() -> Backbone:
    return UNet(channels=(8,), groups=4)


def test_the_worse_network_is_trained_less_and_shared_by_arms_of_other_scales() -> None:
    found = plan(recipe())
    one, two, three, twice = (
        found.arms[name] for name in ("auto_1.0", "auto_2.0", "auto_3.0", "twice")
    )
    assert one.siblings == []
    assert two.siblings == three.siblings == twice.siblings[:1]
    assert len(set(twice.siblings)) == 2
    assert [found.stages[stage].payload["train"]["steps"] for stage in twice.siblings] == [1, 2]
    assert two.train == one.train == found.arms["plain"].train
    assert set(found.stages[two.sample].inputs.values()) == {two.train, *two.siblings}
    assert (one.nfe, two.nfe, twice.nfe) == (2, 4, 6)


def test_the_worse_network_may_be_averaged_otherwise_than_by_the_arms_half_life() -> None:
    train = Train(ema_halflife=1000)
    [same, other] = (
        AutoGuidance(scale=2, ema=ema).sibling(tiny_unet(), train) for ema in (None, 0.5)
    )
    assert (same.train.ema, same.train.ema_halflife) == (None, 1000)
    assert (other.train.ema, other.train.ema_halflife) == (0.5, None)


def test_recipes_without_it_keep_their_keys() -> None:
    bare, beside = plan(recipe("\n")), plan(recipe())
    assert set(bare.stages) < set(beside.stages)
    assert all("siblings" not in stage.payload for stage in bare.stages.values())


@pytest.mark.parametrize(
    "arm",
    [
        "  a: {guidance: {name: autoguidance, scale: 2, trained: 1}}",
        "  a: {guidance: {name: autoguidance, scale: 2, trained: 0}}",
    ],
)
def test_a_network_that_is_not_worse_is_refused(arm: str) -> None:
    from fw.core.errors import RecipeError

    with pytest.raises(RecipeError, match=r"not worse|greater than 0"):
        recipe(f"\n{arm}\n")
    with pytest.raises(ValidationError):
        AutoGuidance(trained=1)


def test_a_worse_network_that_is_the_arms_own_is_refused_when_the_recipe_is_checked() -> None:
    from fw.core.errors import RecipeError

    arm = (
        "\n  a: {annotator: null, guidance: {name: autoguidance, scale: 2, trained: 1, model: "
        "linear}}\n"
    )
    with pytest.raises(
        RecipeError, match=r"arms\.a\.guidance: the worse network would be the arm's own"
    ):
        recipe(arm)


def test_a_worse_network_that_cannot_take_the_images_is_refused_when_the_recipe_is_checked() -> (
    None
):
    from fw.core.errors import RecipeError

    found = registry()
    found.add(Provider("unet"), [UNet])
    worse = "{name: autoguidance, scale: 2, model: {name: unet, channels: [16, 16, 16, 16]}}"
    arm = f"\n  a: {{annotator: null, guidance: {worse}}}\n"
    with pytest.raises(
        RecipeError, match=r"arms\.a\.guidance: unet with 4 levels needs images whose sides"
    ):
        validate(parse(toys.RECIPE.rstrip() + arm, "r.yaml"), found)


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


def test_a_run_guides_by_the_trained_sibling_and_counts_its_evaluations(tmp_path: Path) -> None:
    found = plan(recipe())
    store = executed(found, tmp_path / "store")
    for name, nfe in (("plain", 2), ("auto_1.0", 2), ("auto_2.0", 4), ("twice", 6)):
        assert (
            json.loads((store.path(found.arms[name].sample) / "info.json").read_text())["nfe"]
            == nfe
        )
    images = {
        name: (store.path(arm.sample) / "grid.png").read_bytes() for name, arm in found.arms.items()
    }
    assert images["plain"] == images["auto_1.0"]
    assert len({images[name] for name in ("plain", "auto_2.0", "auto_3.0", "twice")}) == 4


def test_by_itself_as_sibling_nothing_changes_and_by_another_the_rule_is_the_papers() -> None:
    good, worse, x = tiny.denoiser(), tiny.denoiser(seed=1), tiny.noisy(3, 0.5)

    def guided(sibling: NetworkDenoiser, scale: float) -> torch.Tensor:
        return Guided(good, [AutoGuidance(scale=scale)], None, 0.02, 10.0, [sibling])(x, 0.5)

    with torch.inference_mode():
        plain = good(x, 0.5)
        assert torch.equal(guided(good, 3.0), plain)
        bad = worse(x, 0.5)
        torch.testing.assert_close(
            guided(worse, 2.5), bad + 2.5 * (plain - bad), atol=1e-5, rtol=1e-5
        )  # eq. 3


def test_the_siblings_settings_follow_from_the_arms() -> None:
    train = Train(steps=1000, ema=0.99)
    same = AutoGuidance(trained=0.3).sibling(tiny_unet(), train)
    assert (same.model, same.train) == (tiny_unet(), Train(steps=300, ema=0.99))
    other = AutoGuidance(model=tiny_unet(), trained=1, ema=0.9).sibling(UNet(), train)
    assert (other.model, other.train) == (tiny_unet(), Train(steps=1000, ema=0.9))
