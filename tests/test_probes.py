"""Probes: how well a representation recognises; closed forms, leaks, and one table with accuracy
and FD."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import faulty_probes
import pytest
import torch
from faulty_probes import FAULTS
from hypothesis import given, settings
from hypothesis import strategies as st
from made import trained
from rich.console import Console
from torch import Tensor
from variants import assert_named

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.pixels import to_unit
from fw.core.diffusion.taps import pooled, usual_block
from fw.core.errors import FwError, Interrupted, RecipeError, StageFailed
from fw.core.execution.options import Options
from fw.core.features.logistic import linear_probe
from fw.core.features.reading import ArmReader, Noisy, positions
from fw.core.job import Job
from fw.core.kinds import FeatureProbe, Glance, Probe, ProbeInNoise, Reader, Reading, TokenProbe
from fw.core.kinds.boundaries import checked_probe_scores
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.randomness import Draws
from fw.core.recipe.loading import validate
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import parse
from fw.core.run.run import run
from fw.core.stages.conditions import are_labels
from fw.core.templates.probe import Example
from fw.core.testing import check, tiny
from fw.core.testing.probe import scores_as_promised
from fw.core.testing.stopping import Stop
from fw.core.types import Annotation, ConditionSpec, Examples, Split
from fw.plugins.annotators.labels import Labels
from fw.plugins.backbones.dit import DiT
from fw.plugins.backbones.unet import UNet
from fw.plugins.joint.hybvit import HybViT
from fw.plugins.joint.jdm import JDM
from fw.plugins.metrics.fd import FD
from fw.plugins.probes.attention import AttentionProbe
from fw.plugins.probes.clusters import Clusters
from fw.plugins.probes.knn import NearestNeighbours
from fw.plugins.probes.labels import stratified
from fw.plugins.probes.linear import LinearProbe
from fw.plugins.probes.recognise import Recognise
from fw.registry import Component, Provider
from tests import toys

OF_FEATURES: list[Probe] = [NearestNeighbours(k=5), LinearProbe(), Clusters(clusters=4), Example()]
PROBES: list[Probe] = [*OF_FEATURES, AttentionProbe(steps=40), Recognise()]

every_probe = pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)


@pytest.fixture(autouse=True)
def generator_that_faulty_probes_move() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield


def blobs(
    probe: Probe, train: int = 200, test: int = 200, apart: float = 8.0
) -> tuple[Examples, Examples]:
    """Four classes, each around its own axis; as tokens four times the same."""
    count, draw = train + test, torch.Generator().manual_seed(1)
    labels = torch.randint(0, 4, (count,), generator=draw)
    features = apart * torch.eye(4)[labels] + torch.randn(count, 4, generator=draw)
    if isinstance(probe, TokenProbe):
        features = features[:, None].expand(count, 4, 4).contiguous()
    named = probe.reads_classes
    return (
        Examples(features[:train], labels[:train], 4, named),
        Examples(features[train:], labels[train:], 4, named),
    )


def scored(probe: Probe, train: Examples, test: Examples, folder: Path) -> dict[str, float]:
    folder.mkdir(parents=True, exist_ok=True)
    return probe.score(train, test, Job(folder))


# The contract


@pytest.mark.parametrize(
    "probe",
    [*PROBES, NearestNeighbours(of="model", k=3), LinearProbe(shares=(0.1, 1.0))],
    ids=lambda probe: f"{probe.name}-{probe.of}",
)
def test_the_honest_pass(probe: Probe) -> None:
    check(probe)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(fault: str) -> None:
    assert_named(getattr(faulty_probes, fault)(), *FAULTS[fault])


# Extreme features


@pytest.mark.parametrize("scale", [2.0**-100, 2.0**70, 2.0**100])
@pytest.mark.parametrize("probe", [NearestNeighbours(k=5), Clusters(clusters=4), LinearProbe()])
def test_features_may_be_as_large_or_small_as_single_precision_holds(
    probe: Probe, scale: float, tmp_path: Path
) -> None:
    """Squares of them are not; a score of chance would be that of the arithmetic."""
    train, test = (replace(each, features=each.features * scale) for each in blobs(probe))
    assert min(scored(probe, train, test, tmp_path).values()) > 0.99


def test_fewer_different_features_than_clusters_are_scored_and_said(tmp_path: Path) -> None:
    probe, job = Clusters(clusters=4), Job(tmp_path)
    features = Examples(torch.eye(3).repeat(20, 1), torch.arange(3).repeat(20), 3)
    assert probe.score(features, features, job)["kmeans4_accuracy_encoder"] == 1
    assert job.warnings == [
        "probe clusters: of 4 clusters some are empty, for only 3 features differ"
    ]


def test_a_linear_probe_of_labels_of_one_class_is_refused_in_a_sentence() -> None:
    with pytest.raises(StageFailed, match="labels of one class alone"):
        linear_probe(torch.randn(8, 3), torch.zeros(8, dtype=torch.int64))


# Closed forms


@every_probe
def test_well_separated_classes_are_all_recognised(probe: Probe, tmp_path: Path) -> None:
    found = scored(probe, *blobs(probe), tmp_path)
    assert min(found.values()) > 0.99, found


@every_probe
def test_labels_that_the_features_know_nothing_of_are_guessed(probe: Probe, tmp_path: Path) -> None:
    """With 400 held-out images in four classes, 0.35 is 4.6 standard errors above chance; purity
    takes the majority."""
    found = scored(probe, *blobs(probe, train=400, test=400, apart=0.0), tmp_path)
    assert max(found.values()) < 0.35, found


@every_probe
def test_labels_of_held_out_images_only_score(probe: Probe, tmp_path: Path) -> None:
    """An accuracy is linear in them: told that all images are of one class, it says how many
    were said to be, and these shares add up to one. Agreement of clusters is none, and clusters
    are the same whatever labels are called."""
    train, test = blobs(probe, apart=1.5)
    if isinstance(probe, Clusters):
        assert test.labels is not None
        renamed = replace(test, labels=3 - test.labels)
        first, second = (scored(probe, train, each, tmp_path / "same") for each in (test, renamed))
        assert (
            first.pop("kmeans4_accuracy_encoder") > 0.6 > second.pop("kmeans4_accuracy_encoder")
        )  # by their names
        assert first == pytest.approx(second)
        return
    shares = [
        scored(
            probe,
            train,
            replace(test, labels=torch.full((len(test),), label)),
            tmp_path / str(label),
        )
        for label in range(4)
    ]
    for key in shares[0]:
        assert sum(share[key] for share in shares) == pytest.approx(1)
        assert max(share[key] for share in shares) < 0.6  # it does not say one class of all


# knn


@settings(max_examples=20)
@given(
    k=st.integers(1, 30),
    temperature=st.sampled_from([0.02, 0.07, 0.1, 1.0]),
    seed=st.integers(0, 99),
)
def test_knn_is_the_weighted_vote_of_the_formula(
    k: int, temperature: float, seed: int, tmp_path_factory: Any
) -> None:
    draw = torch.Generator().manual_seed(seed)
    bank, asked = torch.randn(30, 5, generator=draw), torch.randn(40, 5, generator=draw)
    labels, truth = (torch.randint(0, 3, (count,), generator=draw) for count in (30, 40))
    right = 0
    for row, label in zip(asked.double(), truth.tolist(), strict=True):
        cosines = [float(row @ each / (row.norm() * each.norm())) for each in bank.double()]
        nearest = sorted(range(30), key=lambda place: -cosines[place])[:k]
        votes = [
            sum(2.718281828459045 ** (cosines[n] / temperature) for n in nearest if labels[n] == c)
            for c in range(3)
        ]
        right += votes.index(max(votes)) == label
    probe = NearestNeighbours(k=k, temperature=temperature)
    [found] = scored(
        probe, Examples(bank, labels, 3), Examples(asked, truth, 3), tmp_path_factory.mktemp("job")
    ).values()
    assert found == pytest.approx(right / 40)


def test_keys_name_the_protocol() -> None:
    for probe, keys in (
        (NearestNeighbours(), ["knn20_t07_encoder"]),
        (NearestNeighbours(temperature=0.1, k=200, of="model"), ["knn200_t1_model"]),
        (NearestNeighbours(temperature=1.0), ["knn20_t1.0_encoder"]),
        (
            LinearProbe(shares=(0.01, 0.1, 1.0)),
            ["linear_sk_1pct_encoder", "linear_sk_10pct_encoder", "linear_sk_encoder"],
        ),
        (
            LinearProbe(of="model", blocks=("mid", "up.1"), sigma=0.2, draws=8),
            ["linear_sk_model_mid-up.1_s0.2_d8"],
        ),
        (
            Clusters(),
            [f"kmeans10_{score}_encoder" for score in ("nmi", "ari", "purity", "accuracy")],
        ),
        (AttentionProbe(layers=2), ["attention2_500_model"]),
        (Recognise(), ["joint_accuracy", "joint_accuracy_matched", "joint_accuracy_majority"]),
    ):
        assert list(probe.keys) == keys


def test_more_neighbours_than_images_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(
        FwError, match="probe knn: 20 neighbours need as many training images, and there are 19"
    ):
        scored(NearestNeighbours(), *blobs(NearestNeighbours(), train=19), tmp_path)


# Few labels


@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=120),
    share=st.floats(0.001, 1),
    smaller=st.floats(0.001, 1),
    seed=st.integers(0, 9),
)
def test_a_share_is_as_much_of_every_class_and_holds_every_smaller_share(
    labels: list[int], share: float, smaller: float, seed: int
) -> None:
    given_labels = torch.tensor(labels)

    def chosen(part: float) -> list[int]:
        return stratified(given_labels, part, torch.Generator().manual_seed(seed)).tolist()

    found = chosen(share)
    assert found == sorted(set(found))
    for label in set(labels):
        size = labels.count(label)
        assert sum(labels[place] == label for place in found) == max(1, round(share * size))
    assert set(chosen(min(share, smaller))) <= set(found)


def test_few_labels_recognise_less_and_one_of_each_class_is_enough_to_score(tmp_path: Path) -> None:
    probe = LinearProbe(shares=(0.01, 0.1, 1.0))
    found = list(scored(probe, *blobs(probe, train=400, test=400, apart=2.5), tmp_path).values())
    assert found[0] < found[1] < found[2] + 0.04  # three standard errors of 400 images
    assert found[0] > 0.35  # one image of each class


def test_linear_sees_nothing_of_the_images_whose_labels_a_share_withholds(tmp_path: Path) -> None:
    probe = LinearProbe(shares=(0.2,))
    train, test = blobs(probe, apart=2.0)
    assert train.labels is not None
    shown = stratified(train.labels, 0.2, Job(tmp_path).generator("share"))
    garbage = torch.full_like(train.features, 1e3).index_copy(0, shown, train.features[shown])
    found = [
        scored(probe, replace(train, features=each), test, tmp_path)
        for each in (train.features, garbage)
    ]
    assert found[0] == found[1] != scored(LinearProbe(), train, test, tmp_path)


# recognise


def said(clusters: list[int], labels: list[int], size: int, named: bool = False) -> Examples:
    return Examples(torch.eye(size)[torch.tensor(clusters)], torch.tensor(labels), 3, named)


def test_clusters_of_a_joint_model_are_named_by_the_training_images(tmp_path: Path) -> None:
    train = said(
        [0, 0, 1, 1, 2, 2], [2, 2, 0, 0, 1, 0], size=3
    )  # 0 is label 2, 1 is label 0, and so 2 is label 1
    test = said([0, 1, 2, 2], [2, 0, 1, 0], size=3)
    assert scored(Recognise(), train, test, tmp_path) == {"joint_accuracy_matched": 0.75}
    many = said(
        [0, 0, 1, 3, 3, 3], [2, 2, 2, 0, 0, 1], size=4
    )  # 0 and 1 are both label 2, 3 is label 0
    test = said([0, 1, 3, 3], [2, 2, 0, 1], size=4)
    assert scored(Recognise(), many, test, tmp_path) == {"joint_accuracy_majority": 0.75}
    named = said([0, 1, 2], [2, 0, 1], size=3, named=True)
    test = said([0, 1, 2], [0, 1, 0], size=3, named=True)
    assert scored(Recognise(), named, test, tmp_path) == {"joint_accuracy": pytest.approx(2 / 3)}


def test_classes_are_labels_where_all_that_are_known_are_equal() -> None:
    data = tiny.images(6)
    assert data.labels is not None
    spec = ConditionSpec("class", data.classes)
    few = torch.where(torch.arange(6) < 4, data.labels, -1)
    assert are_labels(Annotation(spec, data.labels), data)
    assert are_labels(Annotation(spec, few, bank=data.labels), data)
    assert not are_labels(Annotation(spec, (data.labels + 1) % 3), data)
    assert not are_labels(Annotation(ConditionSpec("class", 9), data.labels), data)
    assert not are_labels(Annotation(spec, data.labels), data.without_labels())


# Reading a model


def test_the_usual_block_is_the_second_lowest_level_of_a_decoder_and_else_the_middle() -> None:
    shape = (1, 8, 8)
    for backbone, block in (
        (UNet(channels=(8,), groups=4), "up.0"),
        (UNet(channels=(8, 8), groups=4), "up.0"),
        (UNet(channels=(8, 8, 8), groups=4), "up.1"),
        (JDM(channels=(8, 8, 8, 8), groups=4), "up.1"),
        (DiT(depth=4, width=8, heads=2), "blocks.2"),
        (HybViT(depth=3, width=8, heads=2), "blocks.1"),
    ):
        assert usual_block(backbone.build(shape, None)) == block
    with pytest.raises(FwError, match="names no blocks"):
        usual_block(torch.nn.Identity())


def test_positions_of_a_map_follow_each_other_by_row_and_large_ones_are_averaged() -> None:
    rows = torch.arange(2 * 3 * 8 * 4.0).view(2, 3, 8, 4)
    [alone] = positions([rows])
    assert alone.shape == (2, 32, 3)
    assert alone[1, 5].tolist() == rows[1, :, 1, 1].tolist()
    large = torch.rand(2, 3, 16, 32)
    [averaged] = positions([large])
    assert averaged.shape == (2, 64, 3)
    assert torch.allclose(averaged[0, 9], large[0, :, 2:4, 4:8].mean(dim=(1, 2)))
    [tokens] = positions([rows[:, 0]])
    assert tokens.data_ptr() == rows[:, 0].data_ptr()


def test_small_maps_are_upsampled_to_the_largest() -> None:
    """Bilinear, without aligned corners: 2x1 becomes 4x1 with a quarter and three quarters
    between."""
    small, large = torch.tensor([0.0, 4.0]).view(1, 1, 2, 1), torch.rand(1, 3, 4, 1)
    upsampled, kept = positions([small, large])
    assert upsampled.flatten().tolist() == [0, 1, 3, 4]
    assert torch.equal(kept, large.flatten(2).transpose(1, 2))
    beside = positions([torch.rand(1, 2, 2, 2), torch.rand(1, 2, 32, 32)])
    assert [part.shape[1] for part in beside] == [64, 64]


def unet(shape: tuple[int, int, int] = (1, 8, 8)) -> NetworkDenoiser:
    torch.manual_seed(3)
    network = UNet(channels=(8, 16), groups=4).build(shape, ConditionSpec("class", 3))
    return NetworkDenoiser(network.eval(), tiny.TinyProcess())


def noises(count: int, draws: int, shape: tuple[int, int, int]) -> Tensor:
    """The noise of held-out images (draws, N, C, H, W): each has its own stream."""
    stream = Draws(0, "probe", "read test", rows=range(count))
    return torch.stack([stream.normal(*shape) for _ in range(draws)])


def read(
    probe: ProbeInNoise, model: NetworkDenoiser, images: Tensor, split: Split, folder: Path
) -> Tensor:
    reader = ArmReader(probe, {split: images}, Job(folder), model=model)
    return reader.in_noise(split, probe.look, probe.sigma, probe.draws)


def test_a_model_is_shown_each_image_in_several_draws_of_noise_and_told_no_condition(
    tmp_path: Path,
) -> None:
    model, images = unet(), tiny.images(5).images
    probe = NearestNeighbours(of="model", blocks=("mid", "up.0"), sigma=0.2, draws=3)
    found = read(probe, model, images, "test", tmp_path)
    assert found.shape == (5, 16 + 16)
    x0 = to_unit(images)
    by_hand = []
    for noise in noises(5, 3, (1, 8, 8)):
        with torch.no_grad():
            activations = model.features(
                x0 + 0.2 * noise, torch.full((5,), 0.2), ["mid", "up.0"], None
            )
        by_hand.append(torch.cat([pooled(activations["mid"]), pooled(activations["up.0"])], dim=1))
    assert torch.allclose(found, torch.stack(by_hand).mean(dim=0))
    assert not torch.allclose(found, by_hand[0])
    assert not torch.allclose(found, read(probe, model, images, "train", tmp_path))
    one = read(probe.model_copy(update={"draws": 1}), model, images[:2], "test", tmp_path)
    assert torch.allclose(one, by_hand[0][:2], atol=1e-6)  # whatever images are beside it


def test_much_noise_hides_the_classes_and_little_does_not(tmp_path: Path) -> None:
    """At sigma 20 the stripes are a fortieth of the noise, in which every image is hidden in its
    own way; if images shared their noise, a reader would see through it."""
    model, data, found = unet(), tiny.images(600), {}
    assert data.labels is not None
    for sigma in (0.05, 20.0):
        probe = LinearProbe(of="model", sigma=sigma, draws=1)
        features = read(probe, model, data.images, "train", tmp_path)
        train, test = (
            Examples(features[rows], data.labels[rows], 3)
            for rows in (slice(300), slice(300, None))
        )
        [found[sigma]] = scored(probe, train, test, tmp_path).values()
    assert found[0.05] > 0.9
    assert found[20.0] < 0.5  # chance is 1/3


def test_blocks_that_are_not_there_or_do_not_fit_together_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images = unet(), tiny.images(2).images
    with pytest.raises(FwError, match="the network has no block 'middle'"):
        read(NearestNeighbours(of="model", blocks=("middle",)), model, images, "test", tmp_path)
    beside = AttentionProbe(blocks=("mid", "up.1"))
    assert beside.look(Noisy("attention", model, to_unit(images), 0.05)).shape == (2, 64, 16 + 8)
    told = r"tokens of different numbers cannot be put together \(few has 4, many has 9\)"
    monkeypatch.setattr(
        model, "features", lambda *_: {"few": torch.rand(2, 4, 3), "many": torch.rand(2, 9, 3)}
    )
    with pytest.raises(FwError, match=told):
        beside.look(Noisy("attention", model, to_unit(images), 0.05))


def test_an_encoder_has_no_blocks_positions_or_logits() -> None:
    for fields in ({"probe": "attention", "of": "encoder"}, {"probe": "knn", "blocks": ["mid"]}):
        with pytest.raises(RecipeError):
            planned(
                f"probes=[{{name: {fields.pop('probe')}, "
                f"{', '.join(f'{k}: {v}' for k, v in fields.items())}}}]"
            )


# In a recipe


RECIPE = """\
fw: 1
name: probed
dataset: dots
encoder: {name: mean, cells: 2}
annotator: halves
model: {name: unet, channels: [8], groups: 4}
process: unit
train: {steps: 4, batch: 8, warmup: 1}
sampler: {name: euler, steps: 2}
samples: {count: 6, seeds: 3}
metrics: [{name: fd, space: {name: flat, cells: 2}}]
probes:
  - linear
  - {name: linear, of: model, shares: [0.3, 1]}
  - {name: attention, steps: 3}
  - recognise
baseline: unconditional
arms:
  unconditional: {annotator: null}
  clusters: {}
  guided: {guidance: {name: selfish, scale: 1.5}}
  joint: {model: {name: jdm, channels: [8], groups: 4}, annotator: labels}
  joint_free: {model: {name: jdm, channels: [8], groups: 4}}
"""


def recipe(*sets: str) -> Recipe:
    registry = toys.registry()
    builtin: list[type[Component]] = [
        AttentionProbe,
        Clusters,
        FD,
        JDM,
        Labels,
        LinearProbe,
        NearestNeighbours,
        Recognise,
        UNet,
    ]
    registry.add(Provider("probes"), [*builtin, Unlabelled, Extent, Bright, DiT])
    source = parse(RECIPE, "r.yaml")
    source.set(sets)
    return validate(source, registry)


def planned(*sets: str) -> Plan:
    return plan(recipe(*sets))


def refused(*sets: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        planned(*sets)
    return caught.value.problems


class Unlabelled(FeatureProbe):
    """How far features are from zero; needs no labels, and so is shown none."""

    name: ClassVar[str] = "unlabelled"

    @property
    def requires(self) -> frozenset[str]:
        return frozenset()

    @property
    def keys(self) -> dict[str, str]:
        return {f"length_{self.protocol}": "lower"}

    def score(self, train: Examples, test: Examples, job: Job) -> dict[str, float]:
        assert train.labels is None
        assert test.labels is None
        return {f"length_{self.protocol}": float(test.features.norm(dim=1).mean())}


def ran(made: Recipe, out: Path) -> dict[str, Any]:
    options = Options(out=out, device="cpu", jobs=1, threads=1)
    result, failed = run(made, plan(made), options, [], Console(quiet=True))
    assert failed is None, failed
    return result


def test_one_table_has_accuracy_and_frechet_distance(tmp_path: Path) -> None:
    made = recipe()
    result = ran(made, tmp_path)
    linear = {"linear_sk_30pct_model", "linear_sk_model", "attention1_3_model"}
    assert {name: set(arm.get("probes", {})) for name, arm in result["arms"].items()} == {
        "unconditional": linear,
        "clusters": linear | {"linear_sk_encoder"},
        "guided": linear | {"linear_sk_encoder"},
        "joint": linear | {"joint_accuracy"},
        "joint_free": linear | {"linear_sk_encoder", "joint_accuracy_matched"},
    }
    arms = result["arms"]
    assert arms["clusters"]["probes"]["linear_sk_encoder"] == 1  # brightness tells the two classes
    assert list(result["better"]) == ["fd_flat", "fd_infinity_flat", "fd_ratio_flat"]
    folder = (tmp_path / "probed/latest").resolve()
    report = (folder / "report.md").read_text()
    header, _, *rows = [line for line in report.splitlines() if line.startswith("| ")][:8]
    columns = [cell.strip() for cell in header.strip("| ").split(" | ")]
    assert columns == [
        *(
            "arm",
            "fd_flat ↓",
            "fd_infinity_flat ↓",
            "fd_ratio_flat ↓",
            "linear_sk_encoder ↑",
            "linear_sk_30pct_model ↑",
            "linear_sk_model ↑",
        ),
        *("attention1_3_model ↑", "joint_accuracy ↑", "joint_accuracy_matched ↑", "NFE", "seconds"),
    ]
    cells = {
        row.split("|")[1].strip(): [cell.strip() for cell in row.split("|")[2:-1]] for row in rows
    }
    assert cells["unconditional"][3] == cells["unconditional"][7] == ""
    assert cells["joint"][7] == f"{arms['joint']['probes']['joint_accuracy']:.3f}"
    assert "±" in cells["joint"][0]
    assert "A cell is empty" in report
    assert {path.name for path in folder.iterdir()} >= {"arms.png", "report.md", "run.json"}
    assert json.loads((folder / "run.json").read_text())["arms"] == arms


def test_probes_are_shared_by_arms_and_are_no_part_of_other_keys(tmp_path: Path) -> None:
    found, without = planned(), planned("probes=[]")
    arms = found.arms
    assert arms["clusters"].probes == arms["guided"].probes
    assert arms["clusters"].probes[0] == arms["joint_free"].probes[0]  # the same encoder
    assert arms["clusters"].probes[1] != arms["joint_free"].probes[1] != arms["joint"].probes[1]
    probes = {stage for stage in found.stages if stage.startswith("probe-")}
    assert {*found.stages} - probes == {*without.stages}
    assert len(probes) == 1 + 4 + 4 + 2
    other = planned("seed=1")
    assert other.arms["clusters"].probes != arms["clusters"].probes
    assert {other.stages[stage].payload["seed"] for stage in other.arms["clusters"].probes} == {
        0
    }  # the same ruler


def test_a_recipe_without_probes_is_written_as_before_there_were_any() -> None:
    assert "probes" not in recipe("probes=[]").folder_text()
    assert "recognise" in recipe().folder_text()


def test_a_finished_probe_is_found_again_and_a_stopped_one_continues(tmp_path: Path) -> None:
    made = recipe("probes=[{name: attention, steps: 6}]")
    first = ran(made, tmp_path)
    kept = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("probe-*/scores.json")
    }
    assert len(kept) == 4
    assert ran(made, tmp_path)["arms"] == first["arms"]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept

    probe = AttentionProbe(steps=6)
    train, test = blobs(probe, apart=1.0)
    whole = scored(probe, train, test, tmp_path / "whole")
    half = tmp_path / "half"
    half.mkdir()
    with pytest.raises(Interrupted):
        probe.score(train, test, Job(half, stopping=Stop(at=4)))
    assert (half / "attention.checkpoint").exists()
    assert scored(probe, train, test, half) == whole
    states = [
        torch.load(folder / "attention.checkpoint")["state"]["head"]
        for folder in (half, tmp_path / "whole")
    ]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_what_the_stage_scores_is_what_the_trained_model_says(tmp_path: Path) -> None:
    """`joint_accuracy` by hand, from the stored weights."""
    made = recipe("probes=[recognise]")
    found = plan(made)
    result = ran(made, tmp_path)
    [stage] = found.arms["joint"].probes
    model = trained(found.stages[stage], tmp_path / "store")
    held_out = made.dataset.load("test")
    assert held_out.labels is not None
    noise = noises(len(held_out), 4, (1, 4, 4))
    x0 = to_unit(held_out.images)
    with torch.no_grad():
        logits = [model.logits(x0 + 0.05 * draw, 0.05) for draw in noise]
    share = (torch.stack(logits).mean(dim=0).argmax(dim=1) == held_out.labels).double().mean()
    assert result["arms"]["joint"]["probes"] == {"joint_accuracy": float(share)}


def test_a_probe_that_needs_no_labels_is_shown_none_and_one_that_does_is_refused_without(
    tmp_path: Path,
) -> None:
    bare = "dataset={name: dots, labelled: false}"
    arms = "arms={unconditional: {annotator: null}, clusters: {}}"
    result = ran(recipe(bare, arms, "probes=[unlabelled]"), tmp_path)
    assert set(result["arms"]["clusters"]["probes"]) == {"length_encoder"}
    told = refused(bare, arms, "probes=[unlabelled, {name: knn, k: 5}]")
    assert [each.partition(": ")[2] for each in told] == [
        "probes.1: knn needs a dataset with labels"
    ]


@pytest.mark.parametrize(
    ("sets", "reason"),
    [
        (["probes=[knn, knn]"], "probes: 'knn20_t07_encoder' is reported twice"),
        (
            ["probes=[{name: knn, of: model, sigma: 3}]"],
            "knn reads models at sigma 3, and they are trained from 1 to 0.01",
        ),
        (
            ["probes=[recognise]", "arms={unconditional: {annotator: null}}"],
            "no arm has a joint model and an annotator",
        ),
        (
            ["probes=[knn]", "arms={unconditional: {annotator: null}}"],
            "no arm has an encoder whose features its",
        ),
        (
            ["probes=[attention]", "model=linear", "arms={unconditional: {annotator: null}}"],
            "no arm has a model whose blocks",
        ),
    ],
)
def test_a_probe_that_cannot_say_anything_is_refused(sets: list[str], reason: str) -> None:
    assert any(reason in told for told in refused(*sets)), refused(*sets)


def test_a_model_without_a_null_condition_or_without_blocks_is_skipped() -> None:
    probes = "probes=[{name: knn, of: model}]"
    for arm in ("{train: {cond_drop: 0.0}}", "{model: linear}"):
        found = planned(probes, f"arms.clusters={arm}").arms
        assert not found["clusters"].probes
        assert found["unconditional"].probes
    assert (
        planned(probes, "arms.joint.train={cond_drop: 0.0}").arms["joint"].probes
    )  # it is told none anyway


class Extent(ProbeInNoise):
    """Another way of reading, in one class: the greatest activation of each channel."""

    name: ClassVar[str] = "extent"

    of: Literal["model"] = "model"

    @property
    def keys(self) -> dict[str, str]:
        return {f"channels_{self.protocol}": "higher"}

    def look(self, glance: Glance) -> Tensor:
        return torch.cat(
            [each.amax(dim=(2, 3)) for each in glance.activations(self.blocks).values()], dim=1
        )

    def score(self, train: Examples, test: Examples, job: Job) -> dict[str, float]:
        return {key: float(test.features.shape[1]) for key in self.keys}


class Bright(Probe):
    """Yet another: what the model is trained to make, without the model."""

    name: ClassVar[str] = "bright"

    of: Literal["model"] = "model"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"class_conditions"})

    @property
    def subject(self) -> str:
        return "classes"

    def read(self, reader: Reader) -> Reading:
        return Reading(reader.diffused("train"), reader.diffused("test"))

    @property
    def keys(self) -> dict[str, str]:
        return {f"bright_{self.protocol}": "higher"}

    def score(self, train: Examples, test: Examples, job: Job) -> dict[str, float]:
        return {key: float(test.features.mean()) for key in self.keys}


def test_another_way_of_reading_is_one_class(tmp_path: Path) -> None:
    scores_as_promised(Bright())
    made = recipe("probes=[{name: extent, blocks: [mid]}, bright]")
    arms = ran(made, tmp_path)["arms"]
    brightness = float(to_unit(made.dataset.load("test").images).mean())
    assert arms["clusters"]["probes"] == {
        "channels_model_mid": 8,
        "bright_model": pytest.approx(brightness),
    }
    assert arms["unconditional"]["probes"] == {"channels_model_mid": 8}
    assert any(
        "no arm has classes" in each
        for each in refused("probes=[bright]", "arms={unconditional: {annotator: null}}")
    )


def test_scores_that_are_not_as_promised_end_the_stage() -> None:
    probe = NearestNeighbours()
    for scores, reason in (
        ({}, "it scored nothing and promised knn20_t07_encoder"),
        ({"other": 1.0}, "it scored other and promised"),
        ({"knn20_t07_encoder": float("nan")}, "its knn20_t07_encoder is nan, not a finite number"),
    ):
        with pytest.raises(StageFailed, match=f"probe knn: {reason}"):
            checked_probe_scores(probe, scores)
