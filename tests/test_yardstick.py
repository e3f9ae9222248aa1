"""Clusters beside clusters of plain pixels: what is warned of, and how far scores may differ."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made import products
from sklearn.metrics import adjusted_mutual_info_score
from torch import Tensor

from fw.core.features.yardstick import Comparison, compared_with_pixels, scored, standard_error
from fw.core.job import Job
from fw.core.kinds import Annotator
from fw.core.stages.annotate import Annotate
from fw.core.stages.encode import Encode
from fw.core.types import ImageSet
from fw.plugins.annotators.kmeans import KMeans
from fw.plugins.annotators.labels import Labels
from fw.plugins.annotators.permuted import Permuted
from fw.plugins.annotators.random import Random
from fw.plugins.datasets.digits import Digits
from fw.plugins.encoders.pca import PCA
from fw.plugins.encoders.pixels import Pixels


def drawn(count: int, groups: int, labels: int, noise: float, seed: int) -> tuple[Tensor, Tensor]:
    """Groups and labels (N,) that depend on each other the more, the less noise there is."""
    draw = torch.Generator().manual_seed(seed)
    truth = torch.randint(labels, (count,), generator=draw)
    own = truth + labels * torch.randint(groups // labels + 1, (count,), generator=draw)
    other = torch.randint(groups, (count,), generator=draw)
    noisy = torch.rand(count, generator=draw) < noise
    return torch.where(noisy, other, own % groups), truth


@settings(deadline=None, max_examples=30)
@given(
    count=st.integers(2, 300),
    groups=st.integers(1, 40),
    labels=st.integers(1, 8),
    noise=st.floats(0, 1),
    seed=st.integers(0, 999),
)
def test_the_score_is_the_adjusted_mutual_information_of_scikit_learn(
    count: int, groups: int, labels: int, noise: float, seed: int
) -> None:
    own, truth = drawn(count, groups, labels, noise, seed)
    found = scored(own, truth)
    assert abs(float(found.influence.mean())) < 1e-9
    if len(own.unique()) < count and len(truth.unique()) > 1 and len(own.unique()) > 1:
        expected = adjusted_mutual_info_score(truth, own)
        assert found.ami == pytest.approx(expected, abs=1e-6)


def test_the_best_is_the_score_of_groups_that_are_parts_of_classes() -> None:
    truth = torch.arange(10).repeat_interleave(100)
    groups = 3 * truth + torch.arange(1000) % 3
    whole = scored(groups, truth)
    assert whole.best == pytest.approx(whole.ami)
    draw = torch.Generator().manual_seed(0)
    mixed = scored(groups[torch.randperm(1000, generator=draw)], truth)
    assert mixed.best == pytest.approx(whole.ami)
    assert mixed.ami < 0.1


@pytest.mark.parametrize("noise", [0.2, 0.6])
def test_the_standard_error_is_that_over_sets_of_images(noise: float) -> None:
    """Over 200 sets the standard deviation is known to 5 %."""
    sets = [scored(*drawn(1000, 20, 5, noise, seed)) for seed in range(200)]
    spread = np.std([each.ami for each in sets])
    assert np.mean([standard_error(each.influence) for each in sets]) == pytest.approx(
        spread, rel=0.2
    )


def test_the_error_of_a_difference_is_that_of_two_clusterings_of_the_same_images() -> None:
    leads, errors = [], []
    for seed in range(200):
        one, truth = drawn(800, 10, 5, 0.3, seed)
        draw = torch.Generator().manual_seed(seed + 1000)
        swapped = torch.rand(800, generator=draw) < 0.1
        other = torch.where(swapped, torch.randint(10, (800,), generator=draw), one)
        pair = [scored(each, truth) for each in (one, other)]
        leads.append(pair[0].ami - pair[1].ami)
        errors.append(standard_error(pair[0].influence - pair[1].influence))
    assert np.mean(errors) == pytest.approx(np.std(leads), rel=0.25)


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return Digits().load("train")


def compared(groups: Tensor, digits: ImageSet, count: int = 10) -> Comparison:
    assert digits.labels is not None
    return compared_with_pixels(groups, count, digits.images, digits.labels, 0)


def test_random_groups_are_hardly_better_than_random(digits: ImageSet) -> None:
    groups = torch.randint(10, (len(digits),), generator=torch.Generator().manual_seed(0))
    found = compared(groups, digits)
    assert found.warning is not None
    assert "hardly better than random" in found.warning
    assert abs(found.ami) < 4 * found.error + 0.01
    assert 0.65 < found.pixels < 0.8


def test_clusters_of_pixels_are_hardly_better_than_pixels(digits: ImageSet, tmp_path: Path) -> None:
    stage = Annotate(Digits(), KMeans(clusters=50), Encode(Digits(), PCA(dims=30)))
    warnings, quality = annotated(stage, tmp_path)
    assert "hardly better than pixels" in warnings[0]
    assert quality["ami_pixels"] == pytest.approx(quality["ami"], abs=0.04)


def test_groups_that_are_mostly_the_labels_are_better(digits: ImageSet) -> None:
    assert digits.labels is not None
    draw = torch.Generator().manual_seed(0)
    wrong = torch.rand(len(digits), generator=draw) < 0.05
    others = torch.randint(10, (len(digits),), generator=draw)
    found = compared(torch.where(wrong, others, digits.labels), digits)
    assert found.warning is None


def test_of_many_images_some_are_compared_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorted by class: the first images would be of one."""
    monkeypatch.setattr("fw.core.features.yardstick.IMAGES", 300)
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(10).repeat_interleave(200)
    images = torch.randint(0, 60, (2000, 1, 8, 8), generator=draw, dtype=torch.uint8)
    for label in range(10):
        images[labels == label, 0, label % 8] += 150
    found = compared_with_pixels(labels, 10, images, labels, 0)
    assert found.ami == pytest.approx(1)
    assert 0.5 < found.pixels < 1


def annotated(stage: Annotate, folder: Path) -> tuple[list[str], dict[str, float]]:
    """What a stage warns of, and its quality."""
    if stage.encode is not None:
        encoder = Job(folder / "encoder", seed=0)
        encoder.folder.mkdir()
        stage.encode.run(encoder, products)
    job = Job(folder / "annotation", seed=0)
    job.folder.mkdir()
    stage.run(job, lambda _: folder / "encoder")
    return job.warnings, json.loads((job.folder / "quality.json").read_text())


@pytest.mark.parametrize(
    ("annotator", "encoder"),
    [
        (Random(), None),
        (Labels(), None),
        (Permuted(of=KMeans()), PCA()),
        (KMeans(), Pixels()),
    ],
    ids=["random", "labels", "permuted", "pixels"],
)
def test_nobody_is_warned_of_controls_and_labels(
    annotator: Annotator, encoder: PCA | Pixels | None, tmp_path: Path
) -> None:
    encode = None if encoder is None else Encode(Digits(), encoder)
    warnings, quality = annotated(Annotate(Digits(), annotator, encode), tmp_path)
    assert not warnings
    assert "ami_pixels" not in quality
    assert "ami" in quality


def test_the_rule_is_a_margin_and_two_standard_errors() -> None:
    even = Comparison(ami=0.5, pixels=0.45, best=1.0, error=0.01, error_of_lead=0.01)
    assert even.warning is None
    assert even._replace(pixels=0.462).warning is not None
    assert even._replace(error_of_lead=0.02).warning is not None
    assert even._replace(pixels=0.465, best=0.6).warning is not None
    assert even._replace(pixels=0.475, best=0.5, error_of_lead=0.005).warning is None
    assert even._replace(pixels=0.5, best=0.51).warning is None  # nothing to be better at
    assert "random" in str(even._replace(ami=0.03).warning)
