"""Sinkhorn's clusters: lightly's step solves the transport problem, and the assignment comes out
balanced."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.loss.swav_loss import sinkhorn
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor
from torch.nn.functional import normalize

from fw.core.errors import FwError
from fw.core.features.quality import utilisation
from fw.core.job import Job
from fw.core.testing import check
from fw.core.types import ConditionSpec, Observations
from fw.plugins.annotators.kmeans import KMeans
from fw.plugins.annotators.sinkhorn import RANGE, Sinkhorn, logits, shares
from fw.plugins.datasets.digits import Digits


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


@pytest.fixture(scope="module")
def digits() -> Observations:
    data = Digits().load("train")
    return Observations(len(data), data.images.flatten(1).float())


def blobs(sizes: list[int], noise: float, seed: int = 0) -> tuple[Observations, Tensor]:
    """Groups about the first of 16 axes, and which image is of which group."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.full((size,), group) for group, size in enumerate(sizes)])
    labels = labels[torch.randperm(len(labels), generator=g)]
    points = torch.eye(16)[labels] + noise * torch.randn(len(labels), 16, generator=g)
    return Observations(len(points), points), labels


def cosines(images: int, clusters: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    points, prototypes = (
        normalize(torch.randn(count, 8, generator=g)) for count in (images, clusters)
    )
    return points @ prototypes.T  # (N, K)


def transported(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """The optimal plan by Sinkhorn in the log domain, in double precision: rows sum to 1,
    columns to N / K."""
    plan = scores.double() / epsilon
    size = torch.tensor(len(scores) / scores.shape[1], dtype=torch.float64)
    for _ in range(iterations):
        plan = plan - plan.logsumexp(dim=0, keepdim=True) + size.log()
        plan = plan - plan.logsumexp(dim=1, keepdim=True)
    return plan.exp()


def codes_of(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """What each image gives to each prototype (N, K)."""
    return (logits(scores, epsilon) + shares(scores, epsilon, iterations)).softmax(dim=1)


def test_the_contract_holds() -> None:
    check(Sinkhorn(clusters=4, rounds=4))


@pytest.mark.parametrize("iterations", [1, 2, 9, 100])
@pytest.mark.parametrize("epsilon", [0.5, 0.05, 0.005])
def test_as_many_iterations_give_the_codes_of_lightlys_step(
    epsilon: float, iterations: int
) -> None:
    scores = cosines(500, 20, seed=0)
    below = (scores - scores.amax(dim=1, keepdim=True)).clamp(min=-RANGE * epsilon)
    # ours begins with codes that sum to 1 for each image, theirs with plain exponentials
    start = torch.softmax(below / epsilon, dim=1).log() * epsilon
    theirs = sinkhorn(start, iterations=iterations, epsilon=epsilon)
    torch.testing.assert_close(codes_of(scores, epsilon, iterations), theirs, atol=2e-4, rtol=1e-3)


@settings(max_examples=20)
@given(images=st.integers(20, 200), clusters=st.integers(2, 20), seed=st.integers(0, 2**31))
def test_codes_are_the_plan_that_double_precision_finds_in_the_log_domain(
    images, clusters, seed
) -> None:
    scores = cosines(images, clusters, seed)
    codes = codes_of(scores, epsilon=0.1, iterations=1000)
    torch.testing.assert_close(codes.double(), transported(scores, 0.1, 1000), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(images))
    torch.testing.assert_close(
        codes.sum(dim=0), torch.full((clusters,), images / clusters), atol=1e-3, rtol=1e-3
    )


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), epsilon=st.floats(0.001, 0.05))
def test_nothing_overflows_at_small_epsilon_in_single_precision(seed: int, epsilon: float) -> None:
    scores = cosines(64, 12, seed)
    scores[:, 3] = -1.0  # a prototype that is far from all
    codes = codes_of(scores, epsilon, iterations=100)
    assert codes.dtype == torch.float32
    assert codes.isfinite().all()
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(64))


def test_lightlys_step_alone_does_overflow_there() -> None:
    assert sinkhorn(cosines(64, 12, seed=0), iterations=3, epsilon=0.001).isnan().any()


def test_clusters_of_unequal_groups_are_balanced_where_those_of_kmeans_are_not(job: Job) -> None:
    data, labels = blobs([300, 30, 10], noise=0.05)
    found = Sinkhorn(clusters=3).annotate(data, job)
    control = KMeans(clusters=3, nredo=10).annotate(data, job).conditions
    assert found.spec == ConditionSpec("class", 3)
    assert normalized_mutual_info_score(labels, control) == pytest.approx(1)
    assert utilisation(control, 3)["balance"] < 0.6
    assert utilisation(found.conditions, 3)["balance"] > 0.98


@pytest.mark.parametrize("clusters", [10, 50, 300])
def test_clusters_of_real_digits_are_balanced_above_kmeans_and_almost_as_tight(
    job, digits, clusters
) -> None:
    points = normalize(digits.features)

    def tightness(ids: Tensor) -> float:
        """The mean cosine of an image to the mean of its cluster."""
        means = torch.stack([points[ids == i].mean(dim=0) for i in range(clusters)])
        return float((points * normalize(means)[ids]).sum(dim=1).mean())

    found, control = (
        kind(clusters=clusters).annotate(digits, job).conditions for kind in (Sinkhorn, KMeans)
    )
    balance, before = (utilisation(ids, clusters)["balance"] for ids in (found, control))
    assert balance > before
    assert balance > 0.97
    assert utilisation(found, clusters)["used"] == 1
    assert tightness(found) > tightness(control) - 0.01


@settings(max_examples=20)
@given(groups=st.integers(2, 8), each=st.integers(10, 40), seed=st.integers(0, 2**31))
def test_well_separated_groups_of_equal_size_are_found(
    tmp_path_factory, groups, each, seed
) -> None:
    data, labels = blobs([each] * groups, noise=0.02, seed=seed)
    found = Sinkhorn(clusters=groups).annotate(data, Job(tmp_path_factory.mktemp("job"), seed=seed))
    assert normalized_mutual_info_score(labels, found.conditions) == pytest.approx(1)


@pytest.mark.parametrize("spare", [0, 1, 10])
def test_nearly_as_many_clusters_as_images_leave_hardly_one_unused(job, digits, spare) -> None:
    data = Observations(200, digits.features[:200])
    ids = Sinkhorn(clusters=200 - spare).annotate(data, job).conditions
    assert utilisation(ids, 200 - spare)["used"] > 0.96


def test_the_length_of_a_feature_does_not_matter(job, digits) -> None:
    lengths = 2.0 ** torch.arange(digits.count).remainder(5)[:, None]  # powers of two: no rounding
    ids, stretched = (
        Sinkhorn(clusters=10).annotate(Observations(digits.count, features), job).conditions
        for features in (digits.features, digits.features * lengths)
    )
    assert normalized_mutual_info_score(ids, stretched) > 0.99


def test_the_seed_of_the_job_alone_decides(tmp_path, digits) -> None:
    def annotate(seed: int, global_seed: int) -> Tensor:
        torch.manual_seed(global_seed)
        return Sinkhorn(clusters=10).annotate(digits, Job(tmp_path, seed=seed)).conditions

    assert annotate(0, 1).equal(annotate(0, 2))
    assert not annotate(0, 1).equal(annotate(1, 1))


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (torch.eye(29), "30 clusters need as many images, and there are 29"),
        (torch.ones(40, 3), "30 clusters need as many different features, and there are 1"),
        (
            torch.eye(20).repeat(2, 1),
            "30 clusters need as many different features, and there are 20",
        ),
        (torch.full((40, 3), torch.nan), "not all finite"),
        (None, "give the arm an encoder"),
    ],
)
def test_what_cannot_be_assigned_is_told_in_one_sentence(job, features, said) -> None:
    with pytest.raises(FwError, match=said):
        Sinkhorn(clusters=30).annotate(
            Observations(40 if features is None else len(features), features), job
        )
