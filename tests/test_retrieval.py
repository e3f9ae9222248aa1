"""Neighbours as conditions: they are the nearest ones, never the image itself, and p_D is how
often each is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors
from test_executor import Heard
from torch import Tensor
from torch.nn.functional import normalize

from fw.core.errors import FwError, RecipeError, StageFailed
from fw.core.execution.executor import Outcome
from fw.core.execution.local import run_here
from fw.core.execution.place import Place
from fw.core.job import Job
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.loading import validate
from fw.core.recipe.source import parse
from fw.core.store.store import Store
from fw.core.testing import check
from fw.core.types import Annotation, ConditionSpec, Observations
from fw.plugins.annotators.knn import KNN
from fw.plugins.annotators.neighbours import Neighbours
from fw.plugins.annotators.retrieval import Retrieval
from fw.plugins.backbones.dit import DiT
from fw.plugins.backbones.unet import UNet
from fw.plugins.datasets.digits import Digits
from fw.plugins.guidance.cfg import CFG
from fw.plugins.guidance.pag import PAG
from fw.plugins.guidance.self_guidance import SelfGuidance
from fw.registry import Provider


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


@pytest.fixture(scope="module")
def digits() -> Observations:
    data = Digits().load("train")
    return Observations(len(data), data.images.flatten(1).float())


def observed(count: int, size: int = 5, seed: int = 0) -> Observations:
    """Features of all lengths and directions."""
    g = torch.Generator().manual_seed(seed)
    return Observations(
        count, torch.randn(count, size, generator=g) * (0.1 + torch.rand(count, 1, generator=g))
    )


def features(data: Observations) -> Tensor:
    assert data.features is not None
    return data.features


def directions(data: Observations) -> Tensor:
    return normalize(features(data), dim=1)


def bank(annotation: Annotation) -> Tensor:
    assert annotation.bank is not None
    return annotation.bank


def neighbours(data: Observations, k: int) -> Tensor:
    """By comparing all pairs in double precision."""
    points = directions(data).double()
    return (points @ points.T).fill_diagonal_(-2).topk(k, dim=1).indices


@pytest.mark.parametrize(
    "annotator",
    [
        KNN(),
        KNN(k=2, include_query=False),
        KNN(index="ivf"),
        Retrieval(),
        Retrieval(k=1, top_m=0.3),
    ],
)
def test_the_contract(annotator):
    check(annotator)
    assert annotator.form == "tokens"
    assert annotator.provides == {"conditions", "label_free"}


# Who the neighbours are


@settings(deadline=None, max_examples=25)
@given(
    count=st.integers(8, 60),
    size=st.integers(2, 9),
    k=st.integers(1, 7),
    seed=st.integers(0, 2**31),
)
def test_conditions_are_the_features_of_the_nearest_others(tmp_path_factory, count, size, k, seed):
    data, job = observed(count, size, seed), Job(tmp_path_factory.mktemp("job"))
    points, expected = directions(data), neighbours(data, k)
    retrieved = Retrieval(k=k).annotate(data, job)
    torch.testing.assert_close(retrieved.conditions, points[expected])
    assert (retrieved.spec.form, retrieved.spec.size, retrieved.spec.count) == ("tokens", size, k)
    knn = KNN(k=k).annotate(data, job)
    torch.testing.assert_close(
        knn.conditions, torch.cat([points[:, None], points[expected]], dim=1)
    )
    assert knn.spec.count == k + 1
    torch.testing.assert_close(
        KNN(k=k, include_query=False).annotate(data, job).conditions, points[expected]
    )


def test_they_are_those_of_scikit_learn(job, digits):
    model = NearestNeighbors(n_neighbors=5, metric="cosine").fit(digits.features.numpy())
    distances, _ = model.kneighbors()  # without the points themselves
    points = directions(digits)
    cosines = torch.einsum("nd,nkd->nk", points, Retrieval(k=5).annotate(digits, job).conditions)
    torch.testing.assert_close(cosines, 1 - torch.from_numpy(distances).float(), rtol=0, atol=1e-5)


def test_an_image_is_not_its_own_neighbour_even_where_others_are_equal_to_it(job):
    """Six equal images: each has the other five before it may have anybody else, and none
    itself."""
    data = observed(20)
    features(data)[:6] = features(data)[0].clone()
    _, others = Retrieval(k=5).nearest(data, job)
    assert not (others == torch.arange(20)[:, None]).any()
    for image in range(6):
        assert set(others[image].tolist()) == set(range(6)) - {image}
    _, some = Retrieval(k=2).nearest(data, job)
    assert not (some == torch.arange(20)[:, None]).any()
    assert (some[:6] < 6).all()


def test_the_length_of_features_does_not_matter(job):
    data = observed(40)
    scaled = replace(data, features=features(data) * (1 + torch.arange(40)[:, None]))
    for annotator in (KNN(), Retrieval()):
        torch.testing.assert_close(
            annotator.annotate(scaled, job).conditions, annotator.annotate(data, job).conditions
        )


def test_ivf_finds_nearly_all_and_in_all_cells_exactly_all(job, digits):
    _, exact = Retrieval().nearest(digits, job)
    _, everywhere = Retrieval(index="ivf", nprobe=1000).nearest(digits, job)
    assert float((everywhere == exact).float().mean()) > 0.999  # equal cosines may change places
    shares = []
    for nprobe in (2, 8):
        _, found = Retrieval(index="ivf", nprobe=nprobe).nearest(digits, job)
        shares.append(float((found[:, :, None] == exact[:, None]).any(dim=2).float().mean()))
    assert shares[0] < shares[1]
    assert shares[1] > 0.95


# The pseudo-queries


def numbers(drawn: Tensor, conditions: Tensor) -> Tensor:
    """Which image each condition of the bank is of."""
    same = (
        torch.cdist(
            drawn.flatten(1), conditions.flatten(1), compute_mode="donot_use_mm_for_euclid_dist"
        )
        == 0
    )
    assert (same.sum(dim=1) == 1).all()
    return same.int().argmax(dim=1)


def frequencies(retrieval: Retrieval, data: Observations, folder: Path, seeds: int = 40) -> Tensor:
    """How often each image is a pseudo-query, over many banks."""
    found = [retrieval.annotate(data, Job(folder, seed=seed)) for seed in range(seeds)]
    drawn = torch.cat([numbers(bank(each), each.conditions) for each in found])
    return drawn.bincount(minlength=data.count) / len(drawn)


def test_pseudo_queries_are_drawn_as_often_as_they_are_retrieved(tmp_path):
    data = observed(60, 20)
    p = neighbours(data, 4).flatten().bincount(minlength=60) / 240  # p_D of the paper
    found = frequencies(Retrieval(k=4), data, tmp_path)
    deviation = (p * (1 - p) / (40 * 60)).sqrt()
    assert (found[p == 0] == 0).all()
    assert ((found - p).abs() <= 5 * deviation).all()
    assert ((1 / 60 - p).abs() > 5 * deviation)[p > 0].any()  # a uniform draw would be seen


def test_top_m_keeps_the_most_retrieved_in_proportion(tmp_path):
    data = observed(60)
    counts = neighbours(data, 4).flatten().bincount(minlength=60)
    most = counts.sort(descending=True).values[:12]
    for seed in range(10):
        annotation = Retrieval(k=4, top_m=0.2).annotate(data, Job(tmp_path, seed=seed))
        drawn = numbers(bank(annotation), annotation.conditions).unique()
        assert len(drawn) <= 12
        assert counts[drawn].min() >= most[-1]
    found = frequencies(Retrieval(k=4, top_m=0.2), data, tmp_path)
    always = counts > most[-1]  # of those at the limit, chance takes some
    p = counts[always] / most.sum()
    assert ((found[always] - p).abs() <= 5 * (p * (1 - p) / (40 * 60)).sqrt()).all()


def test_of_equally_retrieved_images_top_m_takes_some_of_every_class(tmp_path):
    """Pairs of like images in the order of a data set that is sorted by class: all are retrieved
    once, and the first half would be the first class."""
    draw = torch.Generator().manual_seed(0)
    pairs = torch.randn(30, 5, generator=draw).repeat_interleave(2, dim=0)
    data = Observations(60, pairs + 1e-3 * torch.randn(60, 5, generator=draw))
    assert (neighbours(data, 1).flatten().bincount(minlength=60) == 1).all()
    found = frequencies(Retrieval(k=1, top_m=0.5), data, tmp_path, seeds=200)
    share = float(found[:30].sum())
    # Of 60 images 30 are drawn without replacement: the share in the first half, over 200 draws.
    deviation = (0.25 / 30 * 30 / 59 / 200 + 0.25 / (200 * 60)) ** 0.5
    assert share == pytest.approx(0.5, abs=5 * deviation)


def test_the_smallest_top_m_is_one_pseudo_query(job):
    data = observed(30)
    drawn = bank(Retrieval(top_m=1e-6).annotate(data, job))
    assert (drawn == drawn[0]).all()


def test_top_m_changes_the_bank_and_not_what_is_trained_on(job):
    data = observed(30)
    one, other = (Retrieval(top_m=share).annotate(data, job) for share in (1.0, 0.3))
    assert torch.equal(one.conditions, other.conditions)
    assert not torch.equal(bank(one), bank(other))


def test_the_seed_of_the_job_draws_the_pseudo_queries_and_nothing_else(tmp_path):
    data = observed(30)

    def annotate(annotator: Neighbours, seed: int, ambient: int) -> Annotation:
        torch.manual_seed(ambient)
        return annotator.annotate(data, Job(tmp_path, seed=seed))

    one, again, other = (
        annotate(Retrieval(), seed, ambient) for seed, ambient in ((0, 1), (0, 2), (1, 1))
    )
    assert torch.equal(bank(one), bank(again))
    assert not torch.equal(bank(one), bank(other))
    assert torch.equal(one.conditions, other.conditions)
    assert annotate(KNN(), 0, 1).bank is None
    assert torch.equal(annotate(KNN(), 0, 1).conditions, annotate(KNN(), 1, 2).conditions)


# What is refused


@pytest.mark.parametrize("annotator", [KNN(k=4), Retrieval(k=4)])
def test_as_many_images_as_neighbours_are_too_few(annotator, job):
    with pytest.raises(
        FwError, match=f"{annotator.name}: 4 neighbours of an image need 5 images, and there are 4"
    ):
        annotator.annotate(observed(4), job)
    assert len(annotator.annotate(observed(5), job).conditions) == 5


@pytest.mark.parametrize("annotator", [KNN(), Retrieval()])
def test_features_that_point_nowhere_or_all_the_same_way_are_refused(annotator, job):
    zero = observed(20)
    features(zero)[3:5] = 0
    with pytest.raises(
        StageFailed, match="the features of 2 of 20 images are all zero and point nowhere"
    ):
        annotator.annotate(zero, job)
    one_way = Observations(20, torch.arange(1.0, 21)[:, None] * torch.tensor([1.0, 2.0, -0.3]))
    with pytest.raises(StageFailed, match="the features of all images point the same way"):
        annotator.annotate(one_way, job)
    with pytest.raises(StageFailed, match="not all finite"):
        annotator.annotate(Observations(20, torch.full((20, 2), torch.nan)), job)
    with pytest.raises(StageFailed, match="needs features to compare"):
        annotator.annotate(Observations(20), job)


def test_too_few_neighbours_in_the_cells_of_ivf_are_told(job):
    """Pairs in directions of their own: no cell has nearly as many images as are asked for."""
    pairs = torch.eye(16).repeat_interleave(2, dim=0) + 1e-3 * features(observed(32, 16))
    with pytest.raises(
        FwError, match=r"ivf found fewer than 30 neighbours of an image in 1 cells: raise nprobe"
    ):
        Retrieval(k=30, index="ivf", nprobe=1).annotate(Observations(32, pairs), job)


# From a recipe to samples

UNET = "{name: unet, channels: [8, 16], groups: 4, attention: [1]}"
ARMS = {
    "perturbed": "{guidance: {name: pag, scale: 3}}",
    "knn": "{annotator: {name: knn, k: 2}, guidance: {name: cfg, scale: 3}}",
    "dit": (
        "{model: {name: dit, depth: 2, width: 8, heads: 2}, guidance: {name: self_guidance, scale: "
        "3}}"
    ),
}


def planned(*sets: str) -> Plan:
    registry = toys.registry()
    registry.add(Provider("here"), [CFG, DiT, KNN, PAG, Retrieval, SelfGuidance, UNet])
    source = parse(toys.RECIPE, "r.yaml")
    source.set(
        [
            "annotator={name: retrieval, k: 2}",
            "arms.self_1.5={guidance: {name: self_guidance, scale: 3}}",
            *sets,
        ]
    )
    return plan(validate(source, registry))


@pytest.fixture(scope="module")
def found() -> Plan:
    training = "train={steps: 20, batch: 8, warmup: 1, lr: 2e-2, cond_drop: 0.3}"
    return planned(f"model={UNET}", training, *(f"arms.{name}={arm}" for name, arm in ARMS.items()))


@pytest.fixture(scope="module")
def root(found: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    Store(folder).create()
    heard = Heard()
    outcome = run_here(
        found, (), Place(folder, "cpu", threads=1, checkpoint_seconds=20), heard, lambda: False
    )
    assert outcome == Outcome(), heard.reasons
    return folder


def test_arms_with_tokens_train_sample_and_are_guided(found, root):
    samples = {
        next((root / arm.sample).glob("samples-000-*")).read_bytes() for arm in found.arms.values()
    }
    assert len(samples) == len(found.arms) == 6
    assert (
        found.arms["self_1.0"].train
        == found.arms["self_1.5"].train
        == found.arms["perturbed"].train
    )


def test_what_was_annotated_is_read_back_as_tokens_with_its_bank(found, root):
    annotation = Annotation.load(root / found.arms["self_1.0"].annotate / "annotation.safetensors")
    assert annotation.spec == ConditionSpec("tokens", 4, 2)
    assert annotation.conditions.shape == bank(annotation).shape == (20, 2, 4)
    own = Annotation.load(root / found.arms["knn"].annotate / "annotation.safetensors")
    assert own.spec == ConditionSpec("tokens", 4, 3)
    assert own.bank is None


def test_a_backbone_that_takes_no_tokens_is_refused_before_anything_is_done():
    with pytest.raises(
        RecipeError, match="backbone 'linear' takes class or vector conditions, not tokens ones"
    ):
        planned()
