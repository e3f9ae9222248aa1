"""The recipes that come with fw are sound, and say the same after they were resolved."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from fw.core.plan.assembly import plan
from fw.core.recipe.checks import warnings
from fw.core.recipe.loading import load
from fw.core.recipe.model import Recipe

RECIPES = sorted(
    Path(str(entry)) for entry in files("fw.recipes").iterdir() if entry.name.endswith(".yaml")
)

ABOUT_LABELS = {"joint_jdm", "joint_hybvit", "joint_shapes"}
"""Recipes that ask what a model learns from true labels."""
COMPARE_NETWORKS = {"joint_jdm", "joint_hybvit", "joint_label_free", "joint_shapes"}
"""Recipes with arms that are specialists, each with a network or a loss of its own."""


@pytest.fixture(params=RECIPES, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def recipe(path: Path) -> Recipe:
    return load(path)


def test_there_are_recipes() -> None:
    assert {"smoke", "self_guidance", "self_guidance_cifar10"} <= {path.stem for path in RECIPES}


def test_a_recipe_is_named_like_its_file_and_opens_with_how_to_run_it(
    recipe: Recipe, path: Path
) -> None:
    assert recipe.name == path.stem
    title, _, command = path.read_text(encoding="utf-8").splitlines()[:3]
    assert title.startswith("# ")
    assert command.startswith(f"#   fw run recipes/{path.name}")


def test_a_recipe_plans_every_arm_and_shares_the_training_of_those_that_only_sample_differently(
    recipe: Recipe,
) -> None:
    planned = plan(recipe)
    assert planned.arms.keys() == recipe.arms.keys()
    arms = [recipe.arm(name) for name in recipe.arms]
    trained = {
        (arm.encoder, arm.annotator, arm.model, arm.process, arm.train, arm.objectives)
        for arm in arms
    }
    assert len({arm.train for arm in planned.arms.values()}) == len(trained)


def test_a_resolved_recipe_loads_as_an_equal_one_with_the_same_stages(
    recipe: Recipe, tmp_path: Path
) -> None:
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(recipe.to_yaml())
    again = load(resolved)
    assert again == recipe
    assert list(plan(again).stages) == list(plan(recipe).stages)


def test_a_recipe_compares_its_arms_on_equal_terms(recipe: Recipe) -> None:
    told = [warned.reason for warned in warnings(recipe) if "Gaussian" not in warned.reason]
    if recipe.latents is not None:  # its header says so
        told = [reason for reason in told if "LPIPS" not in reason]
    if recipe.name in COMPARE_NETWORKS:
        told = [reason for reason in told if not reason.startswith("model differs")]
    assert [reason for reason in told if reason != recipe.dataset.missing] == []


def test_every_arm_but_the_controls_is_free_of_labels(recipe: Recipe) -> None:
    if recipe.name in ABOUT_LABELS:
        return
    for name in recipe.arms:
        arm = recipe.arm(name)
        uses_labels = arm.annotator is not None and arm.annotator.uses_labels
        assert uses_labels == name.startswith("oracle")
