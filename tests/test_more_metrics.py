"""MIND, CMMD, AuthPct, FLD, the inception score and FD-DINOv2, against closed forms, brute force
and other libraries."""

from __future__ import annotations

import math
from statistics import fmean, stdev

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

from fw.core.errors import StageFailed
from fw.core.kinds import Metric
from fw.core.types import Reference
from fw.plugins.encoders.classifier import Classifier
from fw.plugins.metrics.authpct import AuthPct
from fw.plugins.metrics.cmmd import CMMD
from fw.plugins.metrics.fd_dinov2 import LARGE, FDDINOv2
from fw.plugins.metrics.fid import FID
from fw.plugins.metrics.fld import FLD, Density
from fw.plugins.metrics.inception_score import InceptionScore
from fw.plugins.metrics.memorisation import Memorisation
from fw.plugins.metrics.mind import MIND

RAW = MIND.model_validate({"space": "inception"})
"""In the one space where features are taken as they are."""

IN_PCA = CMMD.model_validate({"space": "pca"})
SURE = InceptionScore.model_validate({"space": {"name": "classifier", "features": "logits"}})


def normal(count: int, dims: int, seed: int) -> Tensor:
    return torch.randn(count, dims, generator=torch.Generator().manual_seed(seed))


def first(metric: Metric, train: Tensor, fake: Tensor, held_out: Tensor | None = None) -> float:
    reference = Reference(train, train if held_out is None else held_out)
    return next(iter(metric.compare(metric.prepare(reference), fake).values()))


# MIND


@pytest.mark.parametrize(("n", "N"), [(6, 6), (6, 4), (5, 7), (12, 4)])
def test_mind_of_one_dimension_is_the_wasserstein_distance_of_repeated_values(
    n: int, N: int
) -> None:
    """Each value repeated until there are equally many is the same distribution."""
    train, fake = normal(N, 1, 0), normal(n, 1, 1) + 0.5
    least = math.lcm(n, N)
    one, other = (
        np.sort(np.repeat(each[:, 0].double().numpy(), least // len(each)))
        for each in (fake, train)
    )
    assert first(RAW, train, fake) == pytest.approx(3 * np.mean((one - other) ** 2), rel=1e-5)


def test_a_shift_costs_three_times_its_square() -> None:
    train, shift = normal(50, 8, 0), torch.tensor([3.0, 4, 0, 0, 0, 0, 0, 0])
    # The mean over 1,000 directions of (w . shift)^2 has a relative error of 0.04.
    assert first(RAW, train, train + shift) == pytest.approx(75, rel=0.15)
    assert first(RAW, train, train) == 0


def test_another_width_costs_what_the_closed_form_of_sliced_normals_says() -> None:
    train, fake = normal(10_000, 4, 0), 1.5 * normal(10_000, 4, 1)
    metric = RAW.model_copy(update={"directions": 100})
    assert first(metric, train, fake) == pytest.approx(3 * 4 * 0.5**2, rel=0.04)


def test_mind_takes_features_of_custom_spaces_in_units_of_the_real_ones() -> None:
    train, fake = normal(60, 5, 0), normal(50, 5, 1) + 0.3
    plain = first(MIND(), train, fake)
    assert first(MIND(), 10 * train + 7, 10 * fake + 7) == pytest.approx(plain, rel=1e-4)
    assert plain == pytest.approx(first(RAW, train, fake), rel=0.3)


def test_mind_in_parts_is_mind_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    train, fake = normal(60, 5, 0), normal(50, 5, 1)
    whole = first(MIND(), train, fake)
    monkeypatch.setattr("fw.plugins.metrics.mind.AT_ONCE", 1000)
    assert first(MIND(), train, fake) == pytest.approx(whole, rel=1e-6)


# CMMD


def squared_mmd(one: np.ndarray, other: np.ndarray) -> float:
    """The unbiased estimate, pair by pair."""

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.exp(-((x - y) ** 2).sum() / (2 * 10.0**2)))

    def within(points: np.ndarray) -> float:
        return fmean(
            kernel(x, y) for i, x in enumerate(points) for j, y in enumerate(points) if i != j
        )

    return within(one) + within(other) - 2 * fmean(kernel(x, y) for x in one for y in other)


def test_cmmd_is_a_thousand_unbiased_squared_mmds_of_directions() -> None:
    train, fake = normal(20, 5, 0), normal(15, 5, 1) + 1
    one, other = (
        (each / each.norm(dim=1, keepdim=True)).double().numpy() for each in (fake, train)
    )
    assert first(IN_PCA, train, fake) == pytest.approx(1000 * squared_mmd(one, other), rel=1e-5)
    assert first(IN_PCA, 3 * train, fake) == pytest.approx(first(IN_PCA, train, fake))


def test_cmmd_in_parts_is_that_of_all_pairs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    train, fake = normal(500, 6, 0), normal(300, 6, 1) + 0.1
    whole = first(IN_PCA, train, fake)
    monkeypatch.setattr("fw.plugins.metrics.cmmd.SIDE", 37)
    assert first(IN_PCA, train, fake) == pytest.approx(whole, rel=1e-9)


def test_cmmd_of_new_images_is_zero_on_average_whatever_their_number() -> None:
    scores = [first(IN_PCA, normal(30, 6, 2 * k), normal(12, 6, 2 * k + 1)) for k in range(40)]
    assert abs(fmean(scores)) < 3 * stdev(scores) / 40**0.5


def test_cmmd_is_of_the_published_clip_by_default_and_refuses_features_without_direction() -> None:
    assert CMMD().space.spec()["model"] == "vit_large_patch14_clip_quickgelu_336.openai"
    with pytest.raises(StageFailed, match="samples are all 0"):
        first(IN_PCA, normal(20, 4, 0), torch.zeros(5, 4))


# AuthPct


def test_authpct_agrees_with_brute_force() -> None:
    train, fake = normal(60, 3, 0), normal(40, 3, 1)
    train[1] = train[0]  # whose nearest neighbours are copies of each other
    among = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(train)
    own = among.kneighbors(train)[0][:, 1]
    apart, number = (each[:, 0] for each in among.kneighbors(fake, n_neighbors=1))
    assert first(AuthPct(), train, fake) == pytest.approx(100 * np.mean(own[number] < apart))
    assert first(AuthPct(), train, train) == 0


def test_authpct_takes_lost_variance_for_copies_and_memorisation_copies_does_not() -> None:
    train, held_out, fake = normal(1437, 16, 0), normal(360, 16, 1), 0.3 * normal(3000, 16, 2)
    assert first(AuthPct(), train, fake / 0.3) == pytest.approx(70, abs=4)
    assert first(AuthPct(), train, fake) < 25
    prepared = Memorisation().prepare(Reference(train, held_out))
    assert abs(Memorisation().compare(prepared, fake)["memorisation_z"]) < 3


# FLD


def test_a_density_is_a_mixture_of_isotropic_gaussians() -> None:
    centres, images = normal(5, 3, 0).double(), normal(7, 3, 1).double()
    spread = torch.linspace(-1, 1, 5)
    each = torch.distributions.Independent(
        torch.distributions.Normal(centres, (0.5 * spread).exp()[:, None]), 1
    )
    equal = torch.distributions.Categorical(torch.ones(5))
    mixture = torch.distributions.MixtureSameFamily(equal, each)
    expected = -float(mixture.log_prob(images).mean()) / 3
    assert Density(centres, spread).nats(images) == pytest.approx(expected, rel=1e-5)


def test_fitted_variances_are_mean_squares_about_the_centres(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of two clusters far apart, each with one centre, after more steps than the paper takes."""
    monkeypatch.setattr("fw.plugins.metrics.fld.STEPS", 300)
    centres = torch.tensor([[30.0, 30], [-30, -30]], dtype=torch.float64)
    images = normal(2000, 2, 0).double() + centres.repeat(1000, 1)
    assert Density.fitted(centres, images).spread.exp() == pytest.approx(1, abs=0.1)


def test_fld_knows_shifts_and_copies_and_the_gap_copies_alone() -> None:
    train, held_out, new = normal(600, 6, 0), normal(300, 6, 1), normal(300, 6, 2)
    prepared = FLD().prepare(Reference(train, held_out))
    copies = train[:300] + 1e-3 * normal(300, 6, 3)
    samples = {"new": new, "shifted": new + 0.7, "copies": copies}
    scores = {name: FLD().compare(prepared, each) for name, each in samples.items()}
    fld = {name: each["fld_classifier"] for name, each in scores.items()}
    gap = {name: each["fld_gap_classifier"] for name, each in scores.items()}
    # As many as the half of the training images that stands for 0.
    assert abs(fld["new"]) < 3
    assert fld["new"] + 10 < fld["shifted"] < fld["copies"]
    assert gap["copies"] < 10 * gap["new"] - 100
    assert gap["shifted"] > gap["new"]


def test_fld_leaves_out_dimensions_without_variance_and_has_no_floor() -> None:
    train, held_out, fake = normal(60, 4, 0), normal(40, 4, 1), normal(50, 4, 2)
    plain = first(FLD(), train, fake, held_out)
    padded = [torch.cat([each, torch.zeros(len(each), 2)], 1) for each in (train, fake, held_out)]
    assert first(FLD(), *padded) == pytest.approx(plain, rel=1e-3)
    assert FLD().floor(FLD().prepare(Reference(train, held_out)), held_out, 50) == {}
    with pytest.raises(StageFailed, match="equal"):
        first(FLD(), train, fake, torch.ones(10, 4))


# the inception score


@pytest.mark.parametrize("sets", [1, 3])
def test_the_inception_score_is_torch_fidelitys(sets: int) -> None:
    logits = 3 * normal(300, 10, 0)
    metric = SURE.model_copy(update={"size": 300 // sets})
    theirs = isc_features_to_metric(logits, splits=sets, shuffle=False)[KEY_METRIC_ISC_MEAN]
    assert first(metric, logits, logits) == pytest.approx(theirs, rel=1e-6)


def test_the_inception_score_is_between_one_and_the_number_of_classes() -> None:
    sure = 1000 * torch.eye(10).repeat(20, 1)
    assert first(SURE, sure, sure) == pytest.approx(10)
    assert first(SURE, sure, torch.zeros(50, 10)) == pytest.approx(1)


def test_the_inception_score_has_no_floor_of_sets_of_fewer_images() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(1000, 10, generator=draw)
    metric = InceptionScore(space={"name": "classifier", "features": "logits"}, size=400)
    whole, few = (metric.compare(None, each) for each in (logits, logits[:50]))
    key = "inception_score_classifier"
    assert few[key] < 0.99 * whole[key]
    assert metric.floor(None, logits[:50], 3000) == {}
    assert metric.floor(None, logits[:50], 50)[key] == pytest.approx(few[key], rel=1e-5)
    assert metric.floor(None, logits, 3000)[key] == pytest.approx(whole[key])


def test_features_that_are_no_logits_have_no_inception_score() -> None:
    for space in ("pca", "classifier", "inception"):
        with pytest.raises(ValidationError, match="needs class probabilities"):
            InceptionScore.model_validate({"space": space})
    with pytest.raises(ValidationError, match="not on its logits"):
        FID.model_validate({"space": {"name": "inception", "features": "logits"}})


def test_the_classifiers_logits_are_its_class_scores_and_its_key_is_what_it_was() -> None:
    torch.manual_seed(0)
    network = Classifier(features="logits").build((1, 8, 8), 10).eval()
    images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    assert network(images).shape == (4, 10)
    torch.manual_seed(0)
    plain = Classifier().build((1, 8, 8), 10).eval()
    assert network(images).equal(plain.head(plain(images)))
    assert "features" not in Classifier().identity()
    assert Classifier(features="logits").identity()["features"] == "logits"


# FD-DINOv2


def test_fd_dinov2_is_of_the_large_model_at_224_pixels_and_not_standardised() -> None:
    metric = FDDINOv2()
    assert metric.space.spec()["model"] == LARGE
    train = normal(60, 5, 0)
    shifted = train + torch.tensor([3.0, 4, 0, 0, 0])
    assert first(metric, train, shifted) == pytest.approx(25, rel=1e-5)
    assert first(metric, 10 * train, 10 * shifted) == pytest.approx(2500, rel=1e-5)
    brought = {"name": "dinov2", "weights": "folder", "resolution": 224}
    assert FDDINOv2.model_validate({"space": brought}).keys.keys() == metric.keys.keys()


@pytest.mark.parametrize(
    "space",
    [
        "pca",
        "dinov2",
        {"name": "dinov2", "model": LARGE},
        {"name": "dinov2", "resolution": 224},
        {"name": "dinov2", "model": LARGE, "resolution": 224, "embedding": "patches"},
    ],
)
def test_fd_dinov2_is_refused_in_another_space(space: object) -> None:
    with pytest.raises(ValidationError, match="use the metric 'fd'"):
        FDDINOv2.model_validate({"space": space})
