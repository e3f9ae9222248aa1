"""The annotators: clusters that are there are found, labels stay unseen, and controls are controls."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans as ReferenceKMeans
from sklearn.metrics import normalized_mutual_info_score

from fw.core.errors import FwError
from fw.core.job import Job
from fw.core.quality import cluster_quality, utilisation
from fw.core.types import ConditionSpec, Observations
from fw.plugins.annotators.kmeans import KMeans
from fw.plugins.annotators.labels import Labels
from fw.plugins.annotators.random import Random
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
def test_planted_clusters_are_found_up_to_their_names(tmp_path_factory, clusters, each, seed, spherical):
    points, labels = planted(clusters, each, seed)
    kmeans = KMeans(clusters=clusters, nredo=30, spherical=spherical)
    found = kmeans.annotate(Observations(len(points), points), Job(tmp_path_factory.mktemp("job"), seed=seed))
    assert found.spec == ConditionSpec("class", clusters)
    assert found.conditions.dtype == torch.int64
    assert normalized_mutual_info_score(labels, found.conditions) == pytest.approx(1)


def test_every_image_is_in_the_cluster_whose_mean_is_nearest(job, digits):
    points = torch.nn.functional.normalize(digits.features)
    ids = KMeans(clusters=8, iterations=200).annotate(digits, job).conditions
    means = torch.stack([points[ids == i].mean(dim=0) for i in range(8)])
    assert torch.cdist(points, means).argmin(dim=1).equal(ids)


def test_the_distortion_is_about_that_of_scikit_learn(job, digits):
    points = torch.nn.functional.normalize(digits.features)
    ours = KMeans(clusters=20).annotate(digits, job).conditions
    theirs = ReferenceKMeans(20, n_init=10, random_state=0).fit(points.numpy()).inertia_
    assert distortion(points, ours) < 1.05 * theirs


def test_no_image_is_left_out_where_faiss_would_take_a_sample(job):
    """faiss trains on at most 256 points per centroid unless told otherwise: here the rest would decide."""
    points = torch.randn(3000, 4, generator=torch.Generator().manual_seed(0))
    seen = Observations(len(points), points)
    ids = KMeans(clusters=2, nredo=1, normalise=False, iterations=300).annotate(seen, job).conditions
    means = torch.stack([points[ids == i].mean(dim=0) for i in range(2)])
    assert torch.cdist(points, means).argmin(dim=1).equal(ids)


def test_with_normalisation_the_length_of_a_feature_does_not_matter(job, digits):
    lengths = 0.5 + torch.rand(digits.count, 1, generator=torch.Generator().manual_seed(0))
    scaled = dataclasses.replace(digits, features=digits.features * lengths)
    plain, stretched = (KMeans(clusters=10).annotate(data, job).conditions for data in (digits, scaled))
    assert normalized_mutual_info_score(plain, stretched) > 0.99
    raw = KMeans(clusters=10, normalise=False)
    assert (
        normalized_mutual_info_score(raw.annotate(digits, job).conditions, raw.annotate(scaled, job).conditions) < 0.9
    )


@pytest.mark.parametrize("annotator", [KMeans(clusters=10), Random(clusters=10)])
def test_a_label_free_annotator_is_blind_to_labels(annotator, job, digits):
    assert "label_free" in annotator.provides
    shuffled = digits.labels[torch.randperm(digits.count, generator=torch.Generator().manual_seed(0))]
    outputs = [
        annotator.annotate(dataclasses.replace(digits, labels=labels, classes=classes), job).conditions
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
    ids = Random(clusters=clusters).annotate(Observations(count), Job(tmp_path_factory.mktemp("job"))).conditions
    sizes = ids.bincount(minlength=clusters)
    assert sizes.max() - sizes.min() <= 1
    assert len(sizes) == clusters


def test_random_clusters_say_nothing_about_the_labels(job, digits):
    quality = cluster_quality(Random(clusters=30).annotate(digits, job).conditions, digits.labels)
    assert quality["ami"] == pytest.approx(0, abs=0.02)
    assert quality["ari"] == pytest.approx(0, abs=0.02)


@settings(deadline=None, max_examples=30)
@given(labels=st.lists(st.integers(0, 4), min_size=2, max_size=60).map(torch.tensor), data=st.data())
def test_quality_does_not_depend_on_the_names_of_clusters(labels, data):
    ids = torch.tensor(data.draw(st.lists(st.integers(0, 4), min_size=len(labels), max_size=len(labels))))
    names = torch.tensor(data.draw(st.permutations(range(5))))
    assert cluster_quality(names[ids], labels) == pytest.approx(cluster_quality(ids, labels))
    assert cluster_quality(names[labels], labels) == pytest.approx(dict.fromkeys(("nmi", "ami", "ari", "purity"), 1.0))


def test_purity_is_the_share_of_images_that_agree_with_their_clusters_majority():
    quality = cluster_quality(torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 0, 1, 1, 2, 2]))
    assert quality["purity"] == pytest.approx(4 / 6)


def test_utilisation_counts_used_clusters_and_their_evenness():
    assert utilisation(torch.tensor([0, 1, 2, 3]), 4) == pytest.approx({"used": 1, "balance": 1})
    assert utilisation(torch.tensor([0, 0, 1, 1]), 4) == pytest.approx({"used": 0.5, "balance": 0.5})
    assert utilisation(torch.tensor([2, 2, 2, 2]), 4) == pytest.approx({"used": 0.25, "balance": 0.25})
