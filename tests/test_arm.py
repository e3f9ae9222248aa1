"""Facts of an arm: what its network has learned, and so what it can be asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from fw.core.errors import RecipeError
from fw.core.plan.assembly import plan
from fw.core.recipe.checks import warnings
from fw.core.recipe.loading import validate
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import read
from fw.registry import installed

TINY = Path(__file__).parent / "tiny.yaml"
SOME_LABELS = "annotator={name: labels, known: 0.5}"
NEVER_DROPPED = "train.cond_drop=0"


def made(*sets: str) -> Recipe:
    source = read(TINY)
    source.set(["baseline=x", "arms={x: {}}", *sets])
    return validate(source, installed())


@pytest.mark.parametrize(
    ("sets", "knows"),
    [
        (("annotator=labels",), True),
        (("annotator=labels", NEVER_DROPPED), False),
        ((SOME_LABELS, NEVER_DROPPED), True),
        (("annotator=null", NEVER_DROPPED), False),
    ],
)
def test_a_network_knows_the_null_condition_where_it_was_trained_on_it(
    sets: tuple[str, ...], knows: bool
) -> None:
    assert made(*sets).arm("x").knows_null is knows


def test_images_without_a_label_teach_the_null_condition_so_guidance_by_it_is_taken() -> None:
    cfg = "guidance={name: cfg, scale: 2}"
    assert made(SOME_LABELS, NEVER_DROPPED, cfg).arm("x").modes
    with pytest.raises(RecipeError, match="'cfg' needs condition dropout"):
        made("annotator=labels", NEVER_DROPPED, cfg)


def test_nobody_is_warned_that_such_a_network_hardly_learns_it() -> None:
    rare = "train.cond_drop=0.0001"
    guided = "guidance={name: cfg, scale: 2}"
    said = [str(each) for each in warnings(made(SOME_LABELS, rare, guided))]
    assert not any("without a condition" in each for each in said)
    assert any(
        "without a condition" in str(each)
        for each in warnings(made("annotator=labels", rare, guided))
    )


def test_such_a_network_is_read_by_probes_of_its_blocks() -> None:
    probe = "probes=[{name: knn, of: model}]"
    assert plan(made(SOME_LABELS, NEVER_DROPPED, probe)).arms["x"].probes
    assert not made("annotator=labels", NEVER_DROPPED).arm("x").works_without_condition


def test_a_share_that_leaves_no_image_without_a_label_is_warned_about() -> None:
    def warned(known: str) -> list[str]:
        sets = ("dataset=digits", f"annotator={{name: labels, known: {known}}}")
        return [str(each) for each in warnings(made(*sets)) if "leaves none" in str(each)]

    [said] = warned("0.999")  # of 1,437 images in ten classes
    assert "annotator" in said
    assert "train.cond_drop" in said
    assert warned("0.9") == warned("1") == []
