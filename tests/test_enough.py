"""Numbers that the data cannot serve are told when a recipe is validated, if the data set says
how many it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from fw.core.errors import RecipeError
from fw.core.recipe.checks import warnings
from fw.core.recipe.loading import validate
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import read
from fw.plugins.datasets.digits import Digits
from fw.plugins.datasets.shapes import Shapes
from fw.registry import installed

TINY = Path(__file__).parent / "tiny.yaml"
FEW = "dataset={name: shapes, size: 8, count: 20, held_out_count: 4, shapes: 2, colours: 1}"


def made(*sets: str) -> Recipe:
    source = read(TINY)
    source.set(sets)
    return validate(source, installed())


def faults(*sets: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        made(*sets)
    return caught.value.problems


def warned(*sets: str) -> list[str]:
    usual = [str(finding) for finding in warnings(made())]
    return [str(finding) for finding in warnings(made(*sets)) if str(finding) not in usual]


@pytest.mark.parametrize("held_out", [0.01, 0.2, 1 / 3, 0.5, 0.9])
def test_the_digits_say_how_many_they_are(held_out: float) -> None:
    digits = Digits(held_out=held_out)
    assert [digits.how_many(split) for split in ("train", "test")] == [
        len(digits.load(split)) for split in ("train", "test")
    ]


def test_shapes_say_how_many_they_are() -> None:
    shapes = Shapes(count=300, held_out_count=7, size=8)
    assert (shapes.how_many("train"), shapes.how_many("test")) == (300, 7)
    assert (len(shapes.load("train")), len(shapes.load("test"))) == (300, 7)


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        (
            ("annotator.clusters=1438",),
            "tiny.yaml:7: annotator: annotator 'kmeans' needs 1,438 training images or more, and "
            "there are 1,437",
        ),
        (
            ("arms.x={annotator: {name: random, clusters: 2000}}",),
            "arms.x.annotator: annotator 'random' needs 2,000",
        ),
        (
            ("arms.x={annotator: {name: sinkhorn, clusters: 2000}}",),
            "arms.x.annotator: annotator 'sinkhorn' needs 2",
        ),
        (
            ("arms.x={annotator: {name: knn, k: 1437}}",),
            "arms.x.annotator: annotator 'knn' needs 1,438 training",
        ),
        (
            ("arms.x={annotator: {name: retrieval, k: 1437}}",),
            "arms.x.annotator: annotator 'retrieval' needs 1,438",
        ),
        (
            (FEW, "metrics.0.space.dims=2", "arms.x={annotator: {name: representation, dims: 21}}"),
            "arms.x.annotator: annotator 'representation' needs 21 training images or more, and "
            "there are 20",
        ),
        (
            (FEW, "metrics.0.space.dims=21"),
            "metrics.0: encoder 'pca' needs 21 training images or more",
        ),
        (
            (FEW, "metrics.0.space.dims=2", "encoder={name: pca, dims: 30}"),
            "encoder: encoder 'pca' needs 30 training",
        ),
        (
            ("metrics=[{name: prdc, space: pixels, nearest_k: 40}]",),
            "metrics.0: metric 'prdc' needs 41 samples (samples.count) or more, and there are 40",
        ),
        (
            ("metrics=[{name: prdc, space: pixels, coverage_k: 360}]", "samples.count=361"),
            "metrics.0: metric 'prdc' needs 361 held-out images or more, and there are 360",
        ),
        (
            ("dataset={name: shapes, size: 8, count: 20, held_out_count: 1}",),
            "metrics.0: metric 'fd' needs 4 held-out images or more, and there are 1",
        ),
        (
            ("probes=[{name: knn, k: 1438}]",),
            "probes.0: probe 'knn' needs 1,438 training images or more",
        ),
        (
            ("probes=[{name: clusters, clusters: 1438}]",),
            "probes.0: probe 'clusters' needs 1,438 training images",
        ),
        (
            ("probes=[linear]", "dataset={name: shapes, size: 8, shapes: 1, colours: 1}"),
            "probes.0: probe 'linear' needs 2 classes of labels or more, and there are 1",
        ),
        (
            ("arms.x={annotator: {name: online, clusters: 33}}",),
            "arms.x.annotator: annotator online: 33 prototypes need as many images at once, and a "
            "batch and the queue",
        ),
        (
            ("arms.x={guidance: {name: negative, scale: 2, condition: 5}}",),
            "arms.x.guidance: there is no class 5: the arm has 5, counted from 0",
        ),
        (
            ("arms.x={annotator: labels, guidance: {name: negative, scale: 2, condition: 10}}",),
            "arms.x.guidance: there is no class 10: the arm has 10, counted from 0",
        ),
    ],
)
def test_more_than_there_is_is_refused_where_it_stands(sets: tuple[str, ...], told: str) -> None:
    found = faults(*sets)
    assert any(told in line for line in found), found


@pytest.mark.parametrize(
    "sets",
    [
        ("annotator.clusters=1437",),
        ("arms.x={annotator: {name: knn, k: 1436}}",),
        ("metrics=[{name: prdc, space: pixels, nearest_k: 39}]",),
        ("metrics=[{name: prdc, space: pixels, coverage_k: 359}]", "samples.count=360"),
        ("probes=[{name: knn, k: 1437}]",),
        ("arms.x={annotator: {name: online, clusters: 32}}",),
        ("arms.x={guidance: {name: negative, scale: 2, condition: 4}}",),
    ],
)
def test_as_much_as_there_is_is_not(sets: tuple[str, ...]) -> None:
    assert made(*sets)


def test_a_data_set_that_does_not_say_how_many_it_has_is_not_asked_for_more(tmp_path: Path) -> None:
    folder = f"dataset={{name: image_folder, root: {tmp_path / 'elsewhere'}, size: 8, channels: 1}}"
    assert made(folder, "annotator.clusters=5000")


def test_neighbours_of_more_images_than_are_looked_at_are_refused() -> None:
    [told] = faults("metrics=[{name: prdc, space: pixels, nearest_k: 9, real: 9}]")
    assert "metrics.0: 9 neighbours need 10 images or more, and real is 9" in told


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        (
            ("arms.x={annotator: {name: labels, known: 0.0001}}",),
            "arms.x.annotator: known 0.0001 of 1,437 images in 10 classes is less than one of "
            "each: one of each is known, 10 labels, which is a share of 0.007",
        ),
        (
            ("probes=[{name: linear, shares: [0.0001, 0.5]}]",),
            "probes.0: shares 0.0001 of 1,437 images in 10 classes are less than one of each: the "
            "probe is shown one of each, 10 labels",
        ),
        (
            ("train.batch=1500",),
            "train.batch: a batch of 1,500 is more than the 1,437 training images: a step sees "
            "some of them more than once",
        ),
    ],
)
def test_numbers_that_mean_something_else_are_warned_about(
    sets: tuple[str, ...], told: str
) -> None:
    assert told in warned(*sets)


def test_numbers_that_mean_what_they_say_are_not_warned_about() -> None:
    assert (
        warned(
            "arms.x={annotator: {name: labels, known: 0.01}}",
            "probes=[{name: linear, shares: [0.01]}]",
        )
        == []
    )
    assert warned("train.batch=1437") == []
