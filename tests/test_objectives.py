"""Extra terms of the training loss: closed forms, whom their gradients reach, what they leave as
it was, resuming."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import faulty_objectives
import pytest
import torch
import toys
from faulty_objectives import FAULTS, Honest, PerImage
from hypothesis import given
from hypothesis import strategies as st
from lightly.loss import NTXentLoss
from safetensors.torch import load_file
from test_executor import Heard
from torch import Tensor, nn
from variants import assert_named

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.errors import FwError, Interrupted, RecipeError, StageFailed
from fw.core.execution.executor import Outcome
from fw.core.execution.local import run_here
from fw.core.execution.place import Place
from fw.core.job import Job
from fw.core.kinds import Backbone, Objective, Seen
from fw.core.learning import train as training
from fw.core.learning.batches import Draw, training_examples
from fw.core.learning.loop import descend
from fw.core.learning.parts.objectives import Objectives, gradient_ratios, usual_block
from fw.core.learning.parts.online import OnlineGrouping
from fw.core.learning.parts.part import Training
from fw.core.learning.train import initial_network, train
from fw.core.machine.team import Team
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.randomness import generator
from fw.core.recipe.checks import warnings
from fw.core.recipe.loading import validate
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import parse
from fw.core.settings import Train
from fw.core.store.store import Store
from fw.core.testing import check, tiny
from fw.core.testing.compare import same
from fw.core.testing.digest import digest
from fw.core.types import Annotation, ConditionSpec
from fw.plugins.annotators.online import OnlineClusters
from fw.plugins.backbones.dit import DiT
from fw.plugins.backbones.unet import UNet
from fw.plugins.encoders.pixels import Pixels
from fw.plugins.joint.hybvit import HybViT
from fw.plugins.joint.jdm import JDM
from fw.plugins.objectives.contrastive import Contrastive, nt_xent, shifted
from fw.plugins.objectives.dispersive import Dispersive
from fw.plugins.objectives.repa import REPA
from fw.plugins.processes.flow import Flow
from fw.registry import Provider

DIT = DiT(depth=2, width=16, heads=2)
UNET = UNet(channels=(8, 16), groups=4)
SETTINGS = Train(steps=12, batch=16, warmup=2)
COUNT = 48
ALIGN = REPA(encoder=Pixels(), hidden=8)
CONTRAST = Contrastive(hidden=8, dims=4)
ALL: tuple[Objective, ...] = (ALIGN, Dispersive(), CONTRAST)


def seen(tokens: Tensor, taken: Tensor | None = None, **more: Any) -> Seen:
    """What a term sees of tokens (B, N, D)."""
    images, levels = torch.zeros(len(tokens), 1, 4, 4), torch.ones(len(tokens))
    return Seen(
        tokens,
        levels > 0 if taken is None else taken,
        images,
        levels,
        images,
        torch.Generator(),
        **more,
    )


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed, "test"))


# The terms


@pytest.mark.parametrize(
    "objective",
    [
        ALIGN,
        REPA(encoder=Pixels(), pool=False, shuffled=True),
        Dispersive(),
        CONTRAST,
        Contrastive(shift=0),
    ],
    ids=repr,
)
def test_the_built_in_ones_keep_the_contract(objective: Objective) -> None:
    check(objective)


@given(seed=st.integers(0, 99), scale=st.floats(0.1, 10))
def test_repa_is_minus_one_where_the_head_says_the_feature_and_one_where_it_says_the_opposite(
    seed: int, scale: float
) -> None:
    features, other = randn(6, 5, seed=seed), randn(6, 5, seed=seed + 100)
    for sign in (1, -1):
        found = ALIGN.term(nn.Identity(), seen(sign * scale * features[:, None], features=features))
        assert found.item() == pytest.approx(-sign, abs=1e-5)
    assert -1 < ALIGN.term(nn.Identity(), seen(other[:, None], features=features)) < 1


def test_repa_aligns_the_mean_token_or_each_token() -> None:
    features = torch.tensor([[1.0, 0.0]]).expand(3, 2)
    tokens = torch.tensor([[1.0, 1.0], [1.0, -1.0]]).expand(3, 2, 2)
    head, each = nn.Identity(), REPA(encoder=Pixels(), pool=False)
    assert ALIGN.term(head, seen(tokens, features=features)) == pytest.approx(-1)
    assert each.term(head, seen(tokens, features=features)) == pytest.approx(-math.sqrt(0.5))


def test_the_shuffled_control_says_nothing_of_an_image() -> None:
    """Its features are those of the batch, in another order each time."""
    features, control = randn(16, 5), REPA(encoder=Pixels(), shuffled=True)
    found = [
        control.term(
            nn.Identity(),
            Seen(features[:, None], *more(16), generator(step, "order"), features=features),
        )
        for step in range(3)
    ]
    assert len({float(each) for each in found}) == 3
    assert min(found) > -0.7
    assert ALIGN.term(nn.Identity(), seen(features[:, None], features=features)) == pytest.approx(
        -1
    )


def more(count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    images, levels = torch.zeros(count, 1, 4, 4), torch.ones(count)
    return levels > 0, images, levels, images


def test_dispersive_is_its_formula_in_double_loops() -> None:
    tokens, tau = randn(5, 2, 3), 0.7
    flat = tokens.flatten(1).double()
    terms = [torch.exp(-(one - other).square().sum() / (6 * tau)) for one in flat for other in flat]
    expected = torch.stack(terms).mean().log()
    found = Dispersive(temperature=tau).term(nn.Identity(), seen(tokens))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


@given(seed=st.integers(0, 99), far=st.floats(0, 1000))
def test_dispersive_is_zero_at_collapse_falls_with_spread_and_knows_no_order_rotation_or_shift(
    seed: int, far: float
) -> None:
    tokens, head, term = randn(6, 2, 4, seed=seed), nn.Identity(), Dispersive().term
    assert term(head, seen(torch.full((6, 2, 4), far))) == pytest.approx(0, abs=1e-6)
    falling = [float(term(head, seen(scale * tokens))) for scale in (0.1, 0.3, 1.0, 3.0)]
    assert 0 > falling[0] > falling[1] > falling[2] > falling[3] >= -math.log(6) - 1e-5
    rotation = torch.linalg.qr(randn(8, 8, seed=seed + 1))[0]
    rotated = (tokens.flatten(1) @ rotation).unflatten(1, (2, 4))
    for other in (tokens.flip(0), rotated, tokens + 3):
        assert term(head, seen(other)) == pytest.approx(falling[2], abs=1e-4)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
@given(mask=st.lists(st.booleans(), min_size=2, max_size=9))
def test_nt_xent_is_lightlys_of_the_images_that_are_taken(
    temperature: float, mask: list[bool]
) -> None:
    one, other = randn(len(mask), 7), randn(len(mask), 7, seed=1)
    for taken in (torch.tensor(mask), torch.ones(len(mask), dtype=torch.bool)):
        found = nt_xent(one, other, taken, temperature)
        if taken.any():
            expected = NTXentLoss(temperature)(one[taken], other[taken])
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        else:
            assert found == 0


def test_contrast_pairs_an_image_with_itself_through_the_teacher() -> None:
    """With a network that keeps the image, a wrong pairing costs more; the teacher sees other
    noise and a shift."""
    looked: list[Tensor] = []
    x0 = 3 * randn(8, 1, 4, 4)
    sigma = torch.full((8,), 0.1)
    noise = randn(8, 1, 4, 4, seed=1)

    def teacher(x: Tensor, sigma: Tensor) -> Tensor:
        looked.append(x)
        return x.flatten(1)[:, None]

    def term(order: Sequence[int], **fields: Any) -> Tensor:
        tokens = (x0 + 0.1 * noise).flatten(1)[list(order), None]
        shown = Seen(tokens, sigma > 0, x0, sigma, noise, generator(0, "term"), teacher=teacher)
        return Contrastive(temperature=0.1, **fields).term(nn.Identity(), shown)

    assert term(range(8), shift=0) < 0.1 < term([1, 0, 3, 2, 5, 4, 7, 6], shift=0)
    assert 0.5 < (looked[0] - x0).std() / 0.1 < 2
    assert (looked[0] - x0 - 0.1 * noise).abs().max() > 0.05
    term(range(8), shift=1)
    assert (looked[-1] - x0).std() > 1


def test_each_image_is_shifted_by_its_own_pixels_and_the_border_repeated() -> None:
    images = torch.arange(25.0).reshape(1, 1, 5, 5).repeat(64, 2, 1, 1)
    found = shifted(images, 1, generator(0, "shift"))
    middles = found[:, 0, 2, 2]
    assert set(middles.tolist()) == {6, 7, 8, 11, 12, 13, 16, 17, 18}
    down = found[middles == 16][0]  # one row below, one column to the left
    rows, columns = [1, 2, 3, 4, 4], [0, 0, 1, 2, 3]
    assert torch.equal(down[1], images[0, 1][rows][:, columns])
    assert torch.equal(shifted(images, 0, generator(0, "shift")), images)


# The contract


def test_the_honest_passes() -> None:
    check(Honest())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(fault: str) -> None:
    assert_named(getattr(faulty_objectives, fault)(), *FAULTS[fault])


# In a training


def targets(objectives: Sequence[Objective]) -> list[Tensor | None]:
    images = tiny.images(COUNT).images
    return [
        each.target.build(tiny.SHAPE, 0)(images) if each.target else None for each in objectives
    ]


def terms_of(objectives: Sequence[Objective]) -> Objectives:
    return Objectives(objectives, targets(objectives))


def trained(
    folder: Path,
    objectives: Sequence[Objective] = ALL,
    backbone: Backbone = DIT,
    settings: Train = SETTINGS,
    annotation: Annotation | None = None,
    **how: Any,
) -> tuple[nn.Module, list[dict[str, float]]]:
    """The averaged network and the log."""
    folder.mkdir(exist_ok=True)
    job = Job(folder, seed=3, **how)
    data = tiny.images(COUNT).without_labels()
    network = train(backbone, Flow(), data, annotation, settings, job, [terms_of(objectives)])
    return network, [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def bits(network: nn.Module) -> str:
    return digest(list(network.state_dict().values()))


CLASSES = Annotation(ConditionSpec("class", 3), torch.arange(COUNT) % 3)


@pytest.mark.parametrize(
    ("backbone", "annotation"),
    [
        (UNET, None),
        (UNET, CLASSES),
        (HybViT(depth=3, width=16, heads=2), CLASSES),
        (JDM(channels=(8, 16), groups=4), CLASSES),
    ],
    ids=["unet", "conditional", "hybvit", "jdm"],
)
def test_every_model_learns_with_every_objective_and_logs_each_term_with_its_gradient(
    backbone: Backbone, annotation: Annotation | None, tmp_path: Path
) -> None:
    plain, before = trained(tmp_path / "plain", (), backbone, annotation=annotation)
    network, log = trained(tmp_path / "all", ALL, backbone, annotation=annotation)
    assert bits(network) != bits(plain)
    assert network.state_dict().keys() == plain.state_dict().keys()  # no head remains
    names = ("repa", "dispersive", "contrastive")
    added = {f"train/{name}{what}" for name in names for what in ("", "_gradient_ratio")}
    for with_terms, without in zip(log, before, strict=True):
        assert with_terms.keys() - without.keys() == added | (
            {"train/denoising_loss"} - without.keys()
        )
        rest = with_terms["train/loss"] - sum(
            each.weight * with_terms[f"train/{each.name}"] for each in ALL
        )
        if "train/denoising_loss" not in without:
            assert with_terms["train/denoising_loss"] == pytest.approx(rest, abs=1e-5)
        else:  # the loss of recognising is part of the rest
            assert 0 < with_terms["train/denoising_loss"] < rest
    assert log[0]["train/loss"] - before[0]["train/loss"] == pytest.approx(
        sum(each.weight * log[0][f"train/{each.name}"] for each in ALL), abs=1e-5
    )
    assert all(log[-1][f"train/{name}_gradient_ratio"] > 0 for name in names)


def test_terms_go_down_when_they_are_learnt(tmp_path: Path) -> None:
    """Alone among heavy weights, each falls below what it is in a training without it."""
    settings = Train(steps=41, batch=16, warmup=2)
    for objective in ALL:
        heavy, light = (objective.model_copy(update={"weight": weight}) for weight in (3.0, 1e-9))
        last = {
            name: trained(tmp_path / f"{name}-{objective.name}", [each], UNET, settings)[1][-1][
                f"train/{objective.name}"
            ]
            for name, each in {"heavy": heavy, "light": light}.items()
        }
        assert last["heavy"] < last["light"] - 0.05, objective.name


def test_logging_costs_no_bit_and_a_training_that_is_killed_goes_on_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, log = trained(tmp_path / "whole")
    calls = iter(range(100))
    with pytest.raises(Interrupted):
        trained(tmp_path / "cut", stopping=lambda: next(calls) == 7)
    stored = torch.load(tmp_path / "cut/train.checkpoint", weights_only=True)["state"]
    assert {"objective repa", "objective dispersive", "objective contrastive"} < stored.keys()
    resumed, again = trained(tmp_path / "cut")
    assert bits(resumed) == bits(whole)
    assert again == log
    monkeypatch.setattr(training, "descend", partial(descend, log_every=1))
    often, every = trained(tmp_path / "often")
    assert bits(often) == bits(whole)
    assert len(every) == SETTINGS.steps > len(log)


def test_without_objectives_gradients_are_asked_for_once_and_blocks_are_not_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_given: Any, **_named: Any) -> Any:
        raise AssertionError("autograd.grad")

    monkeypatch.setattr(torch.autograd, "grad", refused)
    _, log = trained(tmp_path / "plain", ())
    assert log[0].keys() == {"step", "train/loss", "train/grad_norm"}
    with pytest.raises(AssertionError, match=r"autograd\.grad"):
        trained(tmp_path / "all")


def test_the_head_and_the_network_start_from_the_same_bits_with_and_without_other_objectives(
    tmp_path: Path,
) -> None:
    job = Job(tmp_path, seed=3)
    model = NetworkDenoiser(initial_network(DIT, tiny.SHAPE, None, job), Flow())
    draw = Draw(training_examples(tiny.images(COUNT)), Flow(), SETTINGS, job)
    joined = Training(model, model, draw, tiny.SHAPE, SETTINGS, job)
    alone, beside, twice = (terms_of(each) for each in ([ALIGN], [CONTRAST, ALIGN], [ALIGN, ALIGN]))
    for each in (alone, beside, twice):
        each.join(joined)
    assert same(dict(alone.terms[0].head.state_dict()), dict(beside.terms[1].head.state_dict()))
    assert [term.label for term in twice.terms] == ["repa", "repa_2"]
    assert twice.state.keys() == {"objective repa", "objective repa_2"}


def test_the_ratio_of_gradients_is_that_of_two_known_lengths() -> None:
    """Over the weights that both reach: `own` is the loss's alone and `head` the term's."""
    network = nn.ParameterDict(
        {"shared": torch.tensor([1.0, 2.0]), "own": torch.tensor(5.0), "head": torch.tensor(7.0)}
    )
    loss = (network["shared"] * torch.tensor([3.0, 4.0])).sum() + 100 * network["own"]
    terms = {
        "one": 2 * network["shared"][0] + 100 * network["head"],
        "two": network["shared"].square().sum(),
        "none": 3 * network["head"],
    }
    found = {
        name: float(ratio) for name, ratio in gradient_ratios(terms, loss, network, Team()).items()
    }
    assert found == pytest.approx({"one": 2 / 5, "two": math.hypot(2, 4) / 5, "none": 0})
    flat = gradient_ratios({"one": terms["one"]}, 0 * loss, network, Team())
    assert flat["one"] == 0


def test_an_untrained_transformer_has_no_ratio_yet_and_one_later(tmp_path: Path) -> None:
    _, log = trained(tmp_path / "dit", [ALIGN])
    assert log[0]["train/repa_gradient_ratio"] == 0 < log[-1]["train/repa_gradient_ratio"]


class Remembers(Dispersive):
    """Keeps what it sees."""

    name: ClassVar[str] = "remembers"
    uses_teacher: ClassVar[bool] = True

    def term(self, head: nn.Module, seen: Seen) -> Tensor:
        SEEN.append(seen)
        return super().term(head, seen)


SEEN: list[Seen] = []


def test_a_term_sees_its_block_in_the_step_s_own_pass_and_the_teacher_s_without_gradient(
    tmp_path: Path,
) -> None:
    SEEN.clear()
    trained(
        tmp_path / "unet",
        [Remembers(block="down.0", interval=(0.3, 2.0))],
        UNET,
        Train(steps=1, batch=16),
    )
    [shown] = SEEN
    assert shown.teacher is not None
    assert shown.features is None
    assert shown.tokens.requires_grad
    assert torch.equal(shown.taken, (shown.sigma > 0.3) & (shown.sigma <= 2.0))
    looked = shown.teacher(shown.x0 + shown.sigma[:, None, None, None] * shown.noise, shown.sigma)
    assert not looked.requires_grad
    assert (
        looked.shape == shown.tokens.shape == (16, 16, 8)
    )  # 4x4 positions after the first level, 8 channels


def test_the_interval_keeps_images_outside_from_teaching(tmp_path: Path) -> None:
    never = Dispersive(interval=(1e5, 1e6))
    silent, log = trained(tmp_path / "silent", [never])
    plain, _ = trained(tmp_path / "plain", ())
    assert log[-1]["train/dispersive"] == log[-1]["train/dispersive_gradient_ratio"] == 0
    torch.testing.assert_close(dict(silent.state_dict()), dict(plain.state_dict()))


def test_the_block_is_the_papers_where_none_is_named() -> None:
    for depth, expected in {12: (3, 2, 5), 28: (7, 6, 13), 4: (1, 0, 1), 1: (0, 0, 0)}.items():
        network = DiT(depth=depth, width=8, heads=2).build(tiny.SHAPE, None)
        assert [usual_block(each, network) for each in ALL] == [
            f"blocks.{index}" for index in expected
        ]
    unet = UNET.build(tiny.SHAPE, None)
    assert [usual_block(each, unet) for each in ALL] == ["down.1", "down.1", "mid"]


def test_a_block_that_is_not_there_and_a_term_that_is_no_number_are_told(tmp_path: Path) -> None:
    with pytest.raises(FwError, match=r"has no block 'blocks.9' \(it has blocks.0, blocks.1\)"):
        trained(tmp_path / "block", [Dispersive(block="blocks.9")])
    with pytest.raises(
        FwError,
        match="objective dispersive sees a block of the network, and this network names none",
    ):
        trained(tmp_path / "none", [Dispersive()], toys.Linear())
    with pytest.raises(
        StageFailed,
        match=r"objective honest: its term is torch.float32 \(16,\), not one number \(\)",
    ):
        trained(tmp_path / "term", [PerImage()])


def test_online_clusters_are_found_beside_objectives(tmp_path: Path) -> None:
    data, job = tiny.images(COUNT).without_labels(), Job(tmp_path, seed=3)
    online = OnlineClusters(clusters=4, hidden=16, dims=6, queue=32, freeze=2)
    settings = SETTINGS.model_copy(update={"cond_drop": 0.2})
    train(UNET, Flow(), data, None, settings, job, [OnlineGrouping(online), terms_of(ALL)])
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert {"train/online_loss", "train/repa", "train/contrastive_gradient_ratio"} < last.keys()


# In a recipe


RECIPE = """\
fw: 1
name: aligned
dataset: dots
encoder: {name: mean, cells: 2}
annotator: {name: halves, clusters: 2}
model: {name: dit, depth: 2, width: 8, heads: 2}
process: unit
train: {steps: 4, batch: 8, warmup: 1}
sampler: {name: euler, steps: 2}
samples: {count: 6, seeds: 3}
metrics: [{name: gap, space: flat}]
baseline: plain
arms:
  plain: {annotator: null}
  repa: {annotator: null, objectives: {name: repa, encoder: {name: mean, cells: 2}, hidden: 4}}
  both: {annotator: null, objectives: [dispersive, {name: contrastive, interval: [0, 0.5]}]}
  conditional: {objectives: {name: repa, encoder: {name: mean, cells: 2}}}
"""


def resolved(*sets: str) -> Recipe:
    registry = toys.registry()
    registry.add(Provider("objectives"), [Contrastive, DiT, Dispersive, HybViT, REPA])
    source = parse(RECIPE, "r.yaml")
    source.set(sets)
    return validate(source, registry)


def planned(*sets: str) -> Plan:
    return plan(resolved(*sets))


def test_a_recipe_with_objectives_trains_samples_and_scores(tmp_path: Path) -> None:
    found = planned(
        "arms.joint={model: {name: hybvit, depth: 3, width: 8, heads: 2}, objectives: dispersive}"
    )
    Store(tmp_path).create()
    assert (
        run_here(
            found, (), Place(tmp_path, "cpu", 1, checkpoint_seconds=20), Heard(), lambda: False
        )
        == Outcome()
    )
    weights = {
        name: load_file(tmp_path / arm.train / "model.safetensors")
        for name, arm in found.arms.items()
    }
    assert weights["plain"].keys() == weights["repa"].keys() == weights["both"].keys()
    assert not same(weights["plain"], weights["repa"])
    assert not same(weights["plain"], weights["both"])


def test_an_encoder_that_is_aligned_with_is_encoded_once_and_belongs_to_the_arm() -> None:
    found = planned()
    repa, conditional = found.arms["repa"], found.arms["conditional"]
    [encode] = [stage.id for stage in found.stages.values() if stage.title == "encode mean"]
    assert conditional.encode == encode  # shared with the encoder of the conditions
    assert found.stages[repa.train].inputs == {"target 0": encode}
    assert repa.encode is None
    assert set(found.users(encode)) == {"repa", "conditional"}
    assert found.stages[repa.train].title == "train dit, no conditions, repa to mean"


def test_keys_of_arms_without_objectives_are_what_they_were() -> None:
    recipe = resolved()
    assert "objectives" not in plan(recipe).stages[plan(recipe).arms["plain"].train].payload
    without = Recipe.model_validate(
        {**dict(recipe), "arms": {"plain": recipe.arms["plain"]}},
        context={"registry": toys.registry()},
    )
    assert "objectives" not in without.folder_text()  # it names the run's folder
    trains = {arm.train for arm in plan(recipe).arms.values()}
    assert len(trains) == 4
    heavier = planned("arms.both.objectives.0.weight=0.7", "arms.both.objectives.0.name=dispersive")
    assert heavier.arms["both"].train not in trains
    assert heavier.arms["repa"].train in trains


@pytest.mark.parametrize(
    ("arm", "told"),
    [
        (
            "{annotator: null, model: linear, objectives: dispersive}",
            "objective 'dispersive' needs a model whose blocks",
        ),
        (
            "{train: {steps: 4, cond_drop: 0.0}, objectives: contrastive}",
            "looks at images without a condition, so it",
        ),
        (
            "{annotator: null, objectives: {name: repa}}",
            "arms.x.objectives.encoder: this key is required",
        ),
        (
            "{annotator: null, objectives: {name: dispersive, interval: [1, 1]}}",
            "an interval is [lo, hi] with 0 <= lo",
        ),
        (
            "{annotator: null, objectives: {name: dispersive, interval: [2, 3]}}",
            "takes noise levels from 2 to 3, and",
        ),
        (
            "{annotator: null, objectives: {name: dispersive, weight: 0}}",
            "greater than or equal to 0.000",
        ),
        (
            "{objectives: {name: repa, encoder: taught}, guidance: {name: selfish, scale: 2}}",
            "guidance 'selfish' needs conditions that were made without labels",
        ),
    ],
)
def test_what_cannot_work_is_told_when_the_recipe_is_validated(arm: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        planned(f"arms.x={arm}")
    assert any(told in problem for problem in caught.value.problems), caught.value.problems


def test_an_encoder_that_knows_labels_needs_them_and_one_that_scores_is_warned_of() -> None:
    taught = "arms.x={annotator: null, objectives: {name: repa, encoder: taught}}"
    assert planned(taught).arms["x"].arm.objectives[0].requires == {"taps", "labels"}
    with pytest.raises(RecipeError) as caught:
        planned(taught, "dataset={name: dots, labelled: false}")
    assert any(
        "objective 'repa' needs a dataset with labels" in problem
        for problem in caught.value.problems
    )
    flattered = resolved("arms.x={annotator: null, objectives: {name: repa, encoder: flat}}")
    said = (
        "arm x learns the features of encoder 'flat' (repa) and is scored in its space, which "
        "flatters it"
    )
    assert said in [warned.reason for warned in warnings(flattered)]
    assert said not in [warned.reason for warned in warnings(resolved())]
