"""What encoders leave to the images is decided when a recipe is read, and said."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from sites import fw

from fw.core.kinds import Annotator, Encoder
from fw.core.plan.assembly import plan
from fw.core.recipe.checks import warnings
from fw.core.recipe.loading import load
from fw.core.recipe.model import Recipe
from fw.plugins.encoders import views
from fw.plugins.encoders.byol import BYOL
from fw.plugins.encoders.dino import Dino
from fw.plugins.encoders.mae import MAE
from fw.plugins.encoders.moco import MoCo
from fw.plugins.encoders.simclr import SimCLR
from fw.plugins.encoders.swav import SwAV
from fw.registry.component import Component, components_in, with_components

TINY = Path(__file__).parent / "tiny.yaml"
COLOUR = "dataset={name: shapes, size: 16, count: 300, held_out_count: 50}"
DINO = "encoder={name: dino, steps: 2, batch: 8}"
STATED = "encoder={name: dino, steps: 2, batch: 8, augment: %s}"

Shape = tuple[int, int, int]


def loaded(*sets: str) -> Recipe:
    return load(TINY, sets)


def encode_keys(recipe: Recipe) -> set[str]:
    return {stage.id for stage in plan(recipe).stages.values() if stage.kind == "encode"}


@pytest.mark.parametrize("method", [Dino, BYOL, MoCo, SimCLR, SwAV])
@pytest.mark.parametrize(
    ("shape", "chosen"),
    [
        ((1, 8, 8), "digits"),
        ((1, 28, 28), "digits"),
        ((1, 32, 32), "digits"),
        ((1, 28, 64), "photos"),
        ((1, 64, 64), "photos"),
        ((3, 8, 8), "photos"),
        ((3, 224, 224), "photos"),
    ],
)
def test_views_left_to_the_images_are_those_of_digits_for_small_grey_ones(
    method: Any, shape: Shape, chosen: str
) -> None:
    assert method().augment == "auto"
    assert method().suited(shape) == method(augment=chosen)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_encoder_that_never_was_in_a_recipe_takes_the_views_that_a_recipe_would_choose(
    channels: int,
) -> None:
    images = torch.rand(4, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    encoder = Dino()
    drawn, decided = (
        each.views(images, 2, torch.Generator().manual_seed(1))
        for each in (encoder, encoder.suited((channels, 8, 8)))
    )
    assert drawn.equal(decided)


@pytest.mark.parametrize(("sets", "chosen"), [((), "digits"), ((COLOUR,), "photos")])
def test_an_auto_and_what_it_comes_to_are_the_same_recipe(sets: tuple[str], chosen: str) -> None:
    left, stated = loaded(*sets, DINO), loaded(*sets, STATED % chosen)
    assert left.to_yaml() == stated.to_yaml()
    assert left.folder_text() == stated.folder_text()
    assert encode_keys(left) == encode_keys(stated)
    assert f"augment: {chosen}" in left.to_yaml()


def test_colour_images_get_another_key_than_with_the_views_of_digits() -> None:
    other = encode_keys(loaded(COLOUR, DINO)) ^ encode_keys(loaded(COLOUR, STATED % "digits"))
    assert len(other) == 2


def test_encoders_are_decided_wherever_they_stand() -> None:
    recipe = loaded(
        COLOUR,
        "arms.other={encoder: {name: swav}}",
        "objectives={name: repa, encoder: {name: byol}}",
        "metrics=[{name: fd, space: {name: moco}}]",
    )
    found = {each.name: each for each in components_in(recipe) if hasattr(each, "augment")}
    assert {name: each.augment for name, each in found.items()} == {
        "swav": "photos",
        "byol": "photos",
        "moco": "photos",
    }
    assert recipe.arms["self_1.0"].model_fields_set == set()


def test_plans_say_which_views_were_chosen(tmp_path: Path) -> None:
    grey, colour = (
        fw("run", TINY, "--dry-run", "--out", tmp_path, "--set", DINO, *sets).out
        for sets in ((), ("--set", COLOUR))
    )
    assert "encode dino, digits views" in grey
    assert "encode dino, photos views" in colour


def test_the_resolved_recipe_of_a_run_names_the_views(tmp_path: Path) -> None:
    fw("run", TINY, "--out", tmp_path, "--set", COLOUR, "--set", DINO)
    text = (tmp_path / "tiny/latest/recipe.resolved.yaml").read_text(encoding="utf-8")
    assert "augment: photos" in text


@pytest.mark.parametrize("method", ["dino", "byol", "moco", "simclr", "swav", "mae"])
@pytest.mark.parametrize(
    ("sets", "wrong", "remedy"),
    [((), "photos", "augment: digits"), ((COLOUR,), "digits", "augment: photos")],
)
def test_views_for_other_images_are_warned_of_once(
    method: str, sets: tuple[str], wrong: str, remedy: str
) -> None:
    recipe = loaded(*sets, f"encoder={{name: {method}, augment: {wrong}}}")
    [finding] = [each for each in warnings(recipe) if remedy in each.reason]
    assert finding.location == ("encoder",)
    assert f"'{method}'" in finding.reason


@pytest.mark.parametrize("sets", [(), (COLOUR,)])
@pytest.mark.parametrize("encoder", [Dino(), MAE()])
def test_defaults_are_not_warned_of(sets: tuple[str], encoder: Encoder) -> None:
    recipe = loaded(*sets, f"encoder={encoder.name}")
    assert not [each for each in warnings(recipe) if "augment" in each.reason]


def test_views_of_an_encoder_that_is_not_trained_are_not_warned_of(tmp_path: Path) -> None:
    loaded_weights = Dino(augment="digits", weights=tmp_path / "a.pt", steps=1)
    assert list(loaded_weights.cautions((3, 8, 8), 1000)) == []


def test_the_views_of_large_grey_images_are_the_users_affair() -> None:
    assert [*views.unsuited("dino", "digits", (1, 64, 64))] == []
    assert [*views.unsuited("dino", "photos", (1, 64, 64))] == []


@pytest.mark.parametrize(
    ("sets", "at"),
    [
        (("encoder={name: dino, steps: 11, batch: 130}",), ("encoder",)),
        (("encoder={name: repfusion, steps: 11, batch: 130}",), ("encoder",)),
        (
            ("metrics=[{name: fd, space: {name: classifier, steps: 11, batch: 130}}]",),
            ("metrics", 0),
        ),
    ],
)
def test_a_training_that_draws_fewer_images_than_there_are_is_warned_of(
    sets: tuple[str], at: tuple[str | int, ...]
) -> None:
    """There are 1,437 digits to train on."""
    [finding] = [each for each in warnings(loaded(*sets)) if "1,430" in each.reason]
    assert finding.location == at
    enough = [text.replace("steps: 11", "steps: 12") for text in sets]
    assert not [each for each in warnings(loaded(*enough)) if "fewer than" in each.reason]


def test_fewer_clusters_than_classes_are_warned_of() -> None:
    probe = "probes=[{name: clusters, clusters: %s}]"
    few, enough = ([*warnings(loaded(probe % count))] for count in (9, 10))
    [finding] = [each for each in few if "of the 10 classes" in each.reason]
    assert finding.location == ("probes", 0)
    assert not [each for each in enough if "classes" in each.reason]


class Pair(Annotator):
    name: ClassVar[str] = "pair"
    inner: Encoder = Dino()
    named: dict[str, Encoder] = {}  # noqa: RUF012

    def annotate(self, data: Any, job: Any) -> Any:
        raise NotImplementedError


def test_changing_components_reaches_every_depth_and_leaves_the_others_the_same_objects() -> None:
    def mirrored(component: Component) -> Component:
        return MAE() if isinstance(component, Dino) else component

    pair = Pair(named={"one": Dino(), "other": BYOL()})
    changed = with_components((pair, "text", 3), mirrored)
    assert changed == (Pair(inner=MAE(), named={"one": MAE(), "other": BYOL()}), "text", 3)
    assert with_components(changed, mirrored) is changed
