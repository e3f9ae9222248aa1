"""The annotators: clusters that are there are found, labels stay unseen, and controls are
controls."""

import dataclasses

import faiss
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans as ReferenceKMeans
from sklearn.metrics import normalized_mutual_info_score

from fw.core.errors import FwError
from fw.core.features.kmeans import ByFaiss
from fw.core.features.lloyd import Lloyd
from fw.core.features.quality import cluster_quality, utilisation
from fw.core.job import Job
from fw.core.types import ConditionSpec, Observations
from fw.plugins.annotators.kmeans import KMeans
from fw.plugins.annotators.knn import KNN
from fw.plugins.annotators.labels import Labels
from fw.plugins.annotators.neighbours import PAIRS
from fw.plugins.annotators.random import Random
from fw.plugins.annotators.sinkhorn import Sinkhorn
from fw.plugins.datasets.digits import Digits


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


@pytest.fixture(scope="module")
def digits():
    data = Digits().load("train")
    return Observations(len(data), data.images.flatten(1).float(), data.labels, data.classes)


def planted(clusters, each, seed, dims=16):
    """Tight groups about the first axes, scaled at random: apart in angle, not in length."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(clusters).repeat(each)[torch.randperm(clusters * each, generator=g)]
    points = torch.eye(dims)[labels] + 0.02 * torch.randn(len(labels), dims, generator=g)
    return points * (0.5 + torch.rand(len(labels), 1, generator=g)), labels


def distortion(points, ids):
    """Summed squared distance of the points to the mean of their cluster."""
    means = torch.stack([points[ids == i].mean(dim=0) for i in range(int(ids.max()) + 1)])
    return float((points - means[ids]).square().sum())


@settings(deadline=None, max_examples=20)
@given(
    clusters=st.integers(2, 6),
    each=st.integers(5, 40),
    seed=st.integers(0, 2**31),
    spherical=st.booleans(),
)
def test_planted_clusters_are_found_up_to_their_names(
    tmp_path_factory, clusters, each, seed, spherical
):
    points, labels = planted(clusters, each, seed)
    kmeans = KMeans(clusters=clusters, nredo=30, spherical=spherical)
    found = kmeans.annotate(
        Observations(len(points), points), Job(tmp_path_factory.mktemp("job"), seed=seed)
    )
    assert found.spec == ConditionSpec("class", clusters)
    assert found.conditions.dtype == torch.int64
    assert normalized_mutual_info_score(labels, found.conditions) == pytest.approx(1)


def test_every_image_is_in_the_cluster_whose_mean_is_nearest(job, digits):
    points = torch.nn.functional.normalize(digits.features)
    ids = KMeans(clusters=8, iterations=200, tolerance=0).annotate(digits, job).conditions
    means = torch.stack([points[ids == i].mean(dim=0) for i in range(8)])
    assert torch.cdist(points, means).argmin(dim=1).equal(ids)


def test_the_distortion_is_about_that_of_scikit_learn(job, digits):
    points = torch.nn.functional.normalize(digits.features)
    ours = KMeans(clusters=20).annotate(digits, job).conditions
    theirs = ReferenceKMeans(20, n_init=10, random_state=0).fit(points.numpy()).inertia_
    assert distortion(points, ours) < 1.05 * theirs


def test_neighbours_are_as_near_as_those_that_faiss_finds(job, digits, monkeypatch):
    monkeypatch.setitem(PAIRS, "cpu", 10_000)
    points, others = KNN(k=5).nearest(digits, job)
    index = faiss.IndexFlatIP(points.shape[1])
    index.add(points.numpy())
    theirs, _ = index.search(points.numpy(), 6)
    cosines = (points[:, None] * points[others]).sum(dim=2)
    torch.testing.assert_close(cosines, torch.from_numpy(theirs[:, 1:]))


@pytest.mark.parametrize("clusters", [2, 20, 150])
def test_iterations_by_torch_end_as_low_as_those_by_faiss(digits, clusters):
    points = torch.nn.functional.normalize(digits.features)
    start = ByFaiss(clusters, 1, spherical=False, tolerance=0.0).plus_plus(points, 0)
    ends = []
    for kind in (ByFaiss, Lloyd):
        by = kind(clusters, 100, spherical=False, tolerance=0.0)
        centroids, distortion = by.descend(points, start)
        near = by.nearest(points, centroids)
        assert torch.cdist(points, centroids).argmin(dim=1).equal(near)
        assert float((points - centroids[near]).square().sum()) == pytest.approx(
            distortion, rel=1e-4
        )
        ends.append(distortion)
    assert ends[0] == pytest.approx(ends[1], rel=0.01)


def test_the_start_by_torch_is_about_as_good_as_that_by_scikit_learn(digits):
    points = torch.nn.functional.normalize(digits.features)
    by = Lloyd(30, 25, spherical=False, tolerance=0.0)
    theirs = ReferenceKMeans(30, n_init=5, random_state=0).fit(points.numpy()).inertia_
    found = [by.descend(points, by.plus_plus(points, seed)) for seed in range(5)]
    assert all(len(centroids.unique(dim=0)) == 30 for centroids, _ in found)
    assert min(distortion for _, distortion in found) < 1.02 * theirs


def test_by_torch_a_centroid_without_points_moves_to_a_far_one():
    points = torch.tensor([[0.0], [1.0], [10.0]])
    by = Lloyd(3, 25, spherical=False, tolerance=0.0)
    centroids, distortion = by.descend(points, torch.tensor([[0.0], [100.0], [200.0]]))
    assert distortion == 0
    assert centroids.flatten().sort().values.tolist() == [0, 1, 10]


def test_no_image_is_left_out_where_faiss_would_take_a_sample(job):
    """faiss trains on at most 256 points per centroid unless told otherwise: here the rest would
    decide."""
    points = torch.randn(3000, 4, generator=torch.Generator().manual_seed(0))
    seen = Observations(len(points), points)
    ids = (
        KMeans(clusters=2, normalise=False, iterations=300, tolerance=0)
        .annotate(seen, job)
        .conditions
    )
    means = torch.stack([points[ids == i].mean(dim=0) for i in range(2)])
    assert torch.cdist(points, means).argmin(dim=1).equal(ids)


def test_with_normalisation_the_length_of_a_feature_does_not_matter(job, digits):
    lengths = 0.5 + torch.rand(digits.count, 1, generator=torch.Generator().manual_seed(0))
    scaled = dataclasses.replace(digits, features=digits.features * lengths)
    plain, stretched = (
        KMeans(clusters=10).annotate(data, job).conditions for data in (digits, scaled)
    )
    assert normalized_mutual_info_score(plain, stretched) > 0.99
    raw = KMeans(clusters=10, normalise=False)
    assert (
        normalized_mutual_info_score(
            raw.annotate(digits, job).conditions, raw.annotate(scaled, job).conditions
        )
        < 0.9
    )


@pytest.mark.parametrize("annotator", [KMeans(clusters=10), Random(clusters=10)])
def test_a_label_free_annotator_is_blind_to_labels(annotator, job, digits):
    assert "label_free" in annotator.provides
    shuffled = digits.labels[
        torch.randperm(digits.count, generator=torch.Generator().manual_seed(0))
    ]
    outputs = [
        annotator.annotate(
            dataclasses.replace(digits, labels=labels, classes=classes), job
        ).conditions
        for labels, classes in ((digits.labels, 10), (shuffled, 10), (None, 0))
    ]
    assert outputs[0].equal(outputs[1])
    assert outputs[0].equal(outputs[2])


@pytest.mark.parametrize("annotator", [KMeans(clusters=10), Random(clusters=10)])
def test_the_seed_of_the_job_alone_decides(annotator, tmp_path, digits):
    def annotate(seed, global_seed):
        torch.manual_seed(global_seed)
        return annotator.annotate(digits, Job(tmp_path, seed=seed)).conditions

    assert annotate(0, 1).equal(annotate(0, 2))
    assert not annotate(0, 1).equal(annotate(1, 1))


@pytest.mark.parametrize("annotator", [KMeans(clusters=30), Random(clusters=30)])
def test_more_clusters_than_images_are_refused(annotator, job):
    with pytest.raises(FwError, match=r"30 clusters need as many images, and there are 29"):
        annotator.annotate(Observations(29, torch.eye(29)), job)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("spherical", [True, False])
@pytest.mark.parametrize(
    ("features", "found"),
    [
        (torch.ones(40, 3), 1),
        (torch.eye(20).repeat(2, 1), 20),
        (torch.zeros(40, 3), 1),
        (torch.ones(40, 0), 1),
    ],
)
def test_fewer_different_features_than_clusters_are_refused_as_by_sinkhorn(
    features, found, spherical, normalise, job
):
    """Without any feature, faiss ends the process; with few, most clusters stay empty."""
    annotator = KMeans(clusters=30, spherical=spherical, normalise=normalise)
    with pytest.raises(
        FwError, match=rf"30 clusters need as many different features, and there are {found}$"
    ):
        annotator.annotate(Observations(40, features), job)


@pytest.mark.parametrize("spherical", [True, False])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda features: features * 1e20, r"the features reach 4e\+20, where distances overflow"),
        (lambda features: features * 1e37, r"the features reach 4e\+37, where distances overflow"),
        (
            lambda features: features.index_fill(0, torch.tensor([3]), 1e30),
            r"the features reach 1e\+30",
        ),
        (
            lambda features: features * 1e-30,
            r"differ by no more than 3\.9e-30, where distances vanish",
        ),
        (
            lambda features: features * 1e-43,
            r"differ by no more than 3\.9e-43, where distances vanish",
        ),
    ],
)
def test_features_whose_distances_single_precision_does_not_hold_are_refused(
    change, told, spherical, job
):
    """faiss ends the process where they overflow, and puts all images into one cluster where
    they vanish."""
    features = change(torch.linspace(0, 4, 90).view(30, 3))
    annotator = KMeans(clusters=5, spherical=spherical, normalise=False)
    with pytest.raises(FwError, match=f"^annotator kmeans: .*{told}.*`normalise: true`") as error:
        annotator.annotate(Observations(30, features), job)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("scale", [2.0**-120, 2.0**-60, 2.0**60, 2.0**100])
@pytest.mark.parametrize("annotator", [KMeans(clusters=10), Sinkhorn(clusters=10), KNN(k=3)])
def test_with_directions_the_length_of_a_feature_never_matters(annotator, scale, job, digits):
    """Its squares may overflow or vanish in single precision."""
    few = Observations(300, digits.features[:300])
    scaled = annotator.annotate(Observations(300, few.features * scale), job)
    assert torch.allclose(
        scaled.conditions.double(), annotator.annotate(few, job).conditions.double(), atol=1e-5
    )


def test_clusters_without_an_image_are_said(job):
    """Features that differ, but by less than the rounding of their squares."""
    features = torch.tensor([1e4, 1e4 + 1e-3, 1e4 + 2e-3]).repeat(10)[:, None].expand(30, 4)
    found = KMeans(clusters=3, normalise=False).annotate(Observations(30, features), job)
    empty = 3 - len(found.conditions.unique())
    assert empty > 0
    assert job.warnings == [f"annotator kmeans: {empty} of 3 clusters have no image"]


def test_features_that_are_not_finite_are_refused(job):
    with pytest.raises(FwError, match="not all finite"):
        KMeans(clusters=2).annotate(Observations(4, torch.full((4, 2), torch.nan)), job)


def test_the_oracle_hands_on_the_labels_and_says_that_it_uses_them(job, digits):
    annotation = Labels().annotate(digits, job)
    assert annotation.conditions.equal(digits.labels)
    assert annotation.spec == ConditionSpec("class", 10)
    assert "labels" in Labels().requires
    assert "label_free" not in Labels().provides


@settings(deadline=None, max_examples=30)
@given(count=st.integers(10, 500), clusters=st.integers(2, 10))
def test_random_clusters_are_of_equal_size(tmp_path_factory, count, clusters):
    ids = (
        Random(clusters=clusters)
        .annotate(Observations(count), Job(tmp_path_factory.mktemp("job")))
        .conditions
    )
    sizes = ids.bincount(minlength=clusters)
    assert sizes.max() - sizes.min() <= 1
    assert len(sizes) == clusters


def test_random_clusters_say_nothing_about_the_labels(job, digits):
    quality = cluster_quality(Random(clusters=30).annotate(digits, job).conditions, digits.labels)
    assert quality["ami"] == pytest.approx(0, abs=0.02)
    assert quality["ari"] == pytest.approx(0, abs=0.02)


@settings(deadline=None, max_examples=30)
@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=60).map(torch.tensor), data=st.data()
)
def test_quality_does_not_depend_on_the_names_of_clusters(labels, data):
    ids = torch.tensor(
        data.draw(st.lists(st.integers(0, 4), min_size=len(labels), max_size=len(labels)))
    )
    names = torch.tensor(data.draw(st.permutations(range(5))))
    assert cluster_quality(names[ids], labels) == pytest.approx(cluster_quality(ids, labels))
    assert cluster_quality(names[labels], labels) == pytest.approx(
        dict.fromkeys(("nmi", "ami", "ari", "purity"), 1.0)
    )


def test_purity_is_the_share_of_images_that_agree_with_their_clusters_majority():
    quality = cluster_quality(torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 0, 1, 1, 2, 2]))
    assert quality["purity"] == pytest.approx(4 / 6)


def test_utilisation_counts_used_clusters_and_their_evenness():
    assert utilisation(torch.tensor([0, 1, 2, 3]), 4) == pytest.approx({"used": 1, "balance": 1})
    assert utilisation(torch.tensor([0, 0, 1, 1]), 4) == pytest.approx(
        {"used": 0.5, "balance": 0.5}
    )
    assert utilisation(torch.tensor([2, 2, 2, 2]), 4) == pytest.approx(
        {"used": 0.25, "balance": 0.25}
    )
