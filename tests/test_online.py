"""Online clusters: found in the denoiser's own features while it learns, balanced, label-free,
resumed bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import normalized_mutual_info_score
from test_executor import Heard
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.errors import FwError, RecipeError
from fw.core.execution.executor import Outcome
from fw.core.execution.local import run_here
from fw.core.execution.place import Place
from fw.core.job import Job
from fw.core.kinds import Online
from fw.core.learning.batches import Batch
from fw.core.learning.loop import Step
from fw.core.learning.parts.online import OnlineGrouping
from fw.core.learning.train import train
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.randomness import generator
from fw.core.recipe.checks import faults
from fw.core.recipe.loading import validate
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import parse
from fw.core.settings import Train
from fw.core.store.store import Store
from fw.core.testing import check, tiny
from fw.core.testing.digest import digest
from fw.core.types import Annotation, ConditionSpec, ImageSet
from fw.plugins.annotators.online import OnlineClusters, Prototypes
from fw.plugins.backbones.dit import DiT
from fw.plugins.backbones.unet import UNet
from fw.plugins.processes.flow import Flow
from fw.registry import installed

UNET = UNet(channels=(8, 16), groups=4)
SETTINGS = Train(steps=12, batch=16, warmup=2, cond_drop=0.2)
SMALL = OnlineClusters(clusters=4, hidden=16, dims=6, queue=32, freeze=2)


def trained(
    folder: Path,
    online: Online = SMALL,
    backbone: UNet | DiT = UNET,
    settings: Train = SETTINGS,
    data: ImageSet | None = None,
    seed: int = 3,
    **more: Any,
) -> tuple[nn.Module, OnlineGrouping, Annotation, Tensor]:
    """A training with its conditions: the averaged network, what found them, the annotation and
    the groups."""
    folder.mkdir(exist_ok=True)
    data = data or tiny.images(48).without_labels()
    job = Job(folder, seed=seed, **more)
    finder = OnlineGrouping(online)
    averaged = train(backbone, Flow(), data, None, settings, job, [finder])
    return averaged, finder, *finder.annotation(len(data))


def bits(network: nn.Module) -> str:
    return digest(list(network.state_dict().values()))


# The grouping


@pytest.mark.parametrize(
    "online", [OnlineClusters(), OnlineClusters(clusters=50, queue=64, freeze=0, dims=8)]
)
def test_it_keeps_the_contract_of_online_annotators(online: OnlineClusters) -> None:
    check(online)


@pytest.mark.parametrize(
    ("batch", "clusters", "queue", "off"),
    [(64, 30, 0, 0.3), (256, 30, 0, 0.15), (64, 300, 960, 0.3)],
)
def test_sinkhorn_gives_every_image_a_whole_and_every_prototype_an_equal_share(
    batch: int, clusters: int, queue: int, off: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Marginals after 3 iterations at the paper's epsilon, of the very assignments that the loss
    is made of."""
    import lightly.loss.swav_loss as library

    cosines: list[Tensor] = []
    codes: list[Tensor] = []
    original = library.sinkhorn

    def remember(scores: Tensor, **how: Any) -> Tensor:
        cosines.append(scores)
        codes.append(original(scores, **how))
        return codes[-1]

    monkeypatch.setattr(library, "sinkhorn", remember)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        grouping = OnlineClusters(clusters=clusters, queue=queue).build(32)
        for step in range(queue // batch + 1):
            grouping.loss(torch.randn(batch, 32), step)  # type: ignore[operator]
    assert codes[-1].shape == (batch + queue, clusters)
    torch.testing.assert_close(
        codes[-1].sum(dim=1), torch.ones(batch + queue), rtol=1e-4, atol=1e-4
    )
    shares = codes[-1].mean(dim=0) * clusters
    unbalanced = (cosines[-1] / 0.05).softmax(dim=1).mean(dim=0) * clusters
    assert (shares - 1).abs().max() < off < (unbalanced - 1).abs().max()
    if queue:
        assert codes[-2].shape == (
            batch,
            clusters,
        )  # not before there is a queueful of earlier images
        hard = [len(each.argmax(dim=1).unique()) for each in codes]
        assert hard[-1] > 2 * hard[0]  # without the queue, most of the K prototypes are no image's


def test_the_queue_holds_the_latest_images_directions() -> None:
    grouping = OnlineClusters(clusters=4, queue=5, dims=3, hidden=8, hide=0).build(6)
    for step, count in enumerate((3, 4)):
        batch = tiny.features(count, seed=step)
        with torch.no_grad():
            expected = grouping.scores(batch)[0]  # type: ignore[operator]
        grouping.loss(batch, step)  # type: ignore[operator]
        torch.testing.assert_close(grouping.earlier[:count], expected)  # type: ignore[index]
    assert int(grouping.seen) == 7  # type: ignore[arg-type]


class Confident(OnlineClusters):
    """The control: each image learns the prototype that is best anyway, without Sinkhorn."""

    def build(self, width: int) -> nn.Module:
        grouping = super().build(width)
        grouping.criterion = BestIsRight()
        return grouping


class BestIsRight(nn.Module):
    def forward(self, high: list[Tensor], low: list[Tensor], queued: list[Tensor] | None) -> Tensor:
        return cross_entropy(low[0] / 0.1, high[0].argmax(dim=1))


def test_prototypes_stay_in_use_with_sinkhorn_and_most_fall_out_of_it_without() -> None:
    used = {}
    points = torch.randn(512, 16, generator=generator(0, "points"))
    for kind in (OnlineClusters, Confident):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            grouping = kind(clusters=20, freeze=0).build(16)
        optimizer = torch.optim.AdamW(grouping.parameters(), lr=3e-3)
        for step in range(150):
            optimizer.zero_grad()
            grouping.loss(
                points[torch.randperm(512, generator=generator(step))[:128]], step
            ).backward()  # type: ignore[operator]
            optimizer.step()
        with torch.no_grad():
            used[kind] = len(grouping.eval().assign(points).unique())  # type: ignore[operator]
    assert used[OnlineClusters] >= 18
    assert used[Confident] <= used[OnlineClusters] / 2


def test_prototypes_are_frozen_for_as_long_as_they_are_told() -> None:
    grouping = OnlineClusters(freeze=2).build(6)
    optimizer = torch.optim.AdamW(grouping.parameters(), lr=0.01)
    directions = []
    for step in range(4):
        optimizer.zero_grad()
        grouping.loss(tiny.features(30), step).backward()  # type: ignore[operator]
        optimizer.step()
        directions.append(grouping.prototypes.detach().clone())  # type: ignore[operator]
    assert torch.equal(directions[0], directions[1])
    assert not torch.equal(directions[1], directions[2])


def test_more_prototypes_than_images_are_refused() -> None:
    online = OnlineClusters(clusters=300, queue=200)
    with pytest.raises(
        FwError,
        match="300 prototypes need as many images at once, and a batch and the queue are 264",
    ):
        online.build(6).loss(tiny.features(64), 0)  # type: ignore[operator]
    online.build(6).loss(tiny.features(100), 0)  # type: ignore[operator]


def test_predictions_do_not_see_what_is_hidden_and_assignments_see_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Tensor] = []
    original = Prototypes.scores

    def remember(self: Prototypes, given: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(given)
        return original(self, given)

    monkeypatch.setattr(Prototypes, "scores", remember)
    features = tiny.features(64).abs() + 1
    for hide in (0.0, 0.5):
        OnlineClusters(hide=hide).build(6).loss(features, 0)  # type: ignore[operator]
    assert torch.equal(seen[0], torch.cat([features, features]))
    assert torch.equal(seen[1][:64], features)
    assert 0.3 < (seen[1][64:] == 0).float().mean() < 0.7


# The training


@pytest.mark.parametrize("backbone", [UNET, DiT(depth=2, width=16)], ids=lambda each: each.name)
@pytest.mark.parametrize("pool", [True, False])
def test_every_image_ends_with_one_of_the_prototypes_as_its_condition(
    backbone: UNet | DiT, pool: bool, tmp_path: Path
) -> None:
    _, finder, annotation, groups = trained(
        tmp_path, SMALL.model_copy(update={"pool": pool}), backbone
    )
    assert annotation.spec == ConditionSpec("vector", 6)
    assert torch.equal(annotation.conditions, finder.prototypes[groups])
    torch.testing.assert_close(annotation.conditions.norm(dim=1), torch.ones(48))


def test_the_first_part_of_the_training_has_no_conditions_and_the_rest_drops_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[Tensor | None, Tensor | None]] = []
    original = NetworkDenoiser.loss

    def remember(
        self: NetworkDenoiser,
        x0: Tensor,
        sigma: Tensor,
        noise: Tensor,
        condition: Any,
        dropped: Any,
        *rest: Any,
    ) -> Tensor:
        given.append((condition, dropped))
        return original(self, x0, sigma, noise, condition, dropped, *rest)

    monkeypatch.setattr(NetworkDenoiser, "loss", remember)
    trained(tmp_path, SMALL.model_copy(update={"start": 0.25}))
    assert [condition is None for condition, _ in given] == [True] * 3 + [False] * 9
    assert all(dropped is None for _, dropped in given[:3])
    share = torch.cat([dropped for _, dropped in given[3:] if dropped is not None]).float().mean()
    assert 0 < share < 0.5
    assert all(condition.shape == (16, 6) for condition, _ in given[3:] if condition is not None)


def test_features_are_the_averaged_networks_with_the_null_condition_at_the_named_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[nn.Module, Any, Any, bool]] = []
    original = NetworkDenoiser.features

    def remember(
        self: NetworkDenoiser, x: Tensor, sigma: Tensor, blocks: Any, condition: Any = None
    ) -> Mapping[str, Tensor]:
        found = original(self, x, sigma, blocks, condition)
        seen.append((self.network, list(blocks), condition, found[blocks[0]].requires_grad))
        return found

    monkeypatch.setattr(NetworkDenoiser, "features", remember)
    averaged, *_ = trained(tmp_path, SMALL.model_copy(update={"block": "up.1"}))
    assert {network for network, *_ in seen[1:]} == {averaged}
    assert [entry[1:] for entry in seen] == [(["up.1"], None, False)] * len(seen)
    seen.clear()
    trained(tmp_path / "middle")
    assert seen[0][1] == ["mid"]


def test_the_denoiser_learns_nothing_from_the_grouping(tmp_path: Path) -> None:
    """Until there are conditions, its weights do not depend on how the grouping learns."""
    late = SMALL.model_copy(update={"start": 0.99})
    settings = Train(steps=6, batch=16, warmup=0, cond_drop=0.2)
    data = tiny.images(48).without_labels()
    averaged, *_ = trained(tmp_path / "online", late, settings=settings, data=data)
    other, *_ = trained(
        tmp_path / "faster",
        late.model_copy(update={"lr": 0.3, "clusters": 9}),
        settings=settings,
        data=data,
    )
    assert bits(averaged) == bits(other)


def test_the_null_condition_is_trained_to_the_end(tmp_path: Path) -> None:
    def null(steps: int) -> Tensor:
        settings = Train(steps=steps, batch=16, warmup=0, ema=0.0, cond_drop=0.5)
        network, *_ = trained(
            tmp_path / str(steps), SMALL.model_copy(update={"start": 4 / steps}), settings=settings
        )
        return network.state_dict()["embed.null"]

    assert not torch.equal(null(5), null(8))


class Killed(BaseException):
    """Nothing runs after it."""


def test_a_killed_training_goes_on_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at the 8th of 12 steps, after the grouping learnt in it and the denoiser did not
    yet."""
    straight = trained(tmp_path / "straight")

    def kill(self: OnlineGrouping, batch: Batch, step: Step) -> None:
        original(self, batch, step)
        if step.number == 8:
            raise Killed

    original = OnlineGrouping.begin
    monkeypatch.setattr(OnlineGrouping, "begin", kill)
    with pytest.raises(Killed):
        trained(tmp_path / "killed", checkpoint_seconds=0.0)
    monkeypatch.undo()
    resumed = trained(tmp_path / "killed")
    assert bits(straight[0]) == bits(resumed[0])
    for part in ("grouping", "averaged"):
        assert bits(getattr(straight[1], part)) == bits(getattr(resumed[1], part))
    assert torch.equal(straight[2].conditions, resumed[2].conditions)
    assert (tmp_path / "straight" / "log.jsonl").read_text() == (
        tmp_path / "killed" / "log.jsonl"
    ).read_text()
    assert bits(straight[0]) != bits(trained(tmp_path / "other", seed=4)[0])


def test_images_that_differ_plainly_come_into_different_groups(tmp_path: Path) -> None:
    data = tiny.images(60)
    settings = Train(steps=80, batch=30, warmup=5)
    online = OnlineClusters(clusters=3, hidden=32, dims=8, freeze=10, pool=False)
    *_, groups = trained(tmp_path, online, settings=settings, data=data.without_labels())
    assert data.labels is not None
    assert normalized_mutual_info_score(data.labels, groups) > 0.8


def test_a_block_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(FwError, match=r"no block 'middle' \(it has down.0, down.1, mid"):
        trained(tmp_path, SMALL.model_copy(update={"block": "middle"}))


# The run

RECIPE = """\
fw: 1
name: tiny
dataset: digits
annotator: {name: online, clusters: 4, hidden: 16, dims: 6, freeze: 1}
model: {name: unet, channels: [8, 16], groups: 4}
process: flow
train: {steps: 6, batch: 16, warmup: 1}
sampler: {name: dpmpp, steps: 2}
samples: {count: 6, seeds: 3}
metrics: [{name: fd, space: pixels}]
baseline: plain
arms:
  plain: {annotator: null}
  online: {}
  guided: {guidance: {name: self_guidance, scale: 1.4}}
"""


def recipe(*sets: str) -> Recipe:
    source = parse(RECIPE, "r.yaml")
    source.set(sets)
    return validate(source, installed())


def planned(*sets: str) -> Plan:
    return plan(recipe(*sets))


def refused(*sets: str) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe(*sets)
    return " ".join(caught.value.problems)


def test_the_train_stage_makes_the_annotation_and_the_annotator_is_in_its_key() -> None:
    found = planned()
    own = found.arms["online"]
    assert own.annotate == own.train == found.arms["guided"].train != found.arms["plain"].train
    assert own.encode is None
    assert own.stages().count(own.train) == 1
    assert "annotate" not in {stage.kind for stage in found.stages.values()}
    assert found.stages[own.sample].inputs == {"train": own.train, "annotate": own.train}
    assert planned("annotator.clusters=5").arms["online"].train != own.train
    assert planned("annotator.clusters=5").arms["plain"].train == found.arms["plain"].train


def test_a_worse_network_is_trained_on_the_conditions_that_were_found() -> None:
    found = planned("arms.auto={guidance: {name: autoguidance, scale: 1.5}}")
    own = found.arms["auto"]
    [sibling] = own.siblings
    assert found.stages[sibling].inputs == {"annotate": own.train}
    assert "annotator" not in found.stages[sibling].payload
    order = list(found.stages)
    assert order.index(own.train) < order.index(sibling) < order.index(own.sample)


def test_what_it_cannot_work_with_is_refused_with_the_reason() -> None:
    assert "annotator 'online' needs condition dropout: train.cond_drop > 0" in refused(
        "train.cond_drop=0"
    )
    assert (
        "reads features at sigma 5000, and the model is trained from 115.981 to 0.00862"
        in refused("annotator.sigma=5000")
    )
    assert list(faults(recipe())) == []


def test_a_run_makes_it_reports_it_and_never_lets_labels_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run is on digits whose labels are wrong: only the scores of the annotation
    differ."""
    from fw.plugins.datasets.digits import Digits

    conditions, qualities, original = [], [], Digits.load
    for wrong in (False, True):

        def load(self: Digits, split: Any, wrong: bool = wrong) -> ImageSet:
            data = original(self, split)
            assert data.labels is not None
            return ImageSet(
                data.images, data.labels.roll(1) if wrong else data.labels, data.classes
            )

        monkeypatch.setattr(Digits, "load", load)
        found = planned(
            "arms.auto={guidance: {name: autoguidance, scale: 1.5}}",
            "train.steps=30",
            "annotator.lr=0.01",
        )
        store = Store(tmp_path / str(wrong))
        store.create()
        assert (
            run_here(found, (), Place(store.root, "cpu", 1, 20.0), Heard(), lambda: False)
            == Outcome()
        )
        folder = store.path(found.arms["online"].train)
        conditions.append(load_file(folder / "annotation.safetensors")["conditions"])
        qualities.append(json.loads((folder / "quality.json").read_text()))
    assert torch.equal(*conditions)
    agreement = {"nmi", "ami", "ari", "purity", "ami_pixels"}
    assert {"used", "balance"} | agreement == qualities[0].keys()
    assert qualities[0]["used"] == qualities[1]["used"]
    assert any(qualities[0][key] != qualities[1][key] for key in agreement)
