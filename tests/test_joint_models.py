"""The built-in joint models, labels for some images only, and guidance in a joint model's
features."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_executor import Heard
from test_joint import Tiny as TinyJoint
from test_joint import classes_of_brightness
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, one_hot

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.guided import Guided
from fw.core.diffusion.pixels import to_unit
from fw.core.errors import RecipeError, StageFailed
from fw.core.execution.executor import Outcome
from fw.core.execution.local import run_here
from fw.core.execution.place import Place
from fw.core.job import Job
from fw.core.kinds import Backbone, Joint, scaled_dot_product
from fw.core.kinds.boundaries import checked_annotation
from fw.core.learning.parts.objectives import Objectives
from fw.core.learning.train import initial_network, train
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.randomness import Draws
from fw.core.recipe.loading import validate
from fw.core.recipe.source import parse
from fw.core.settings import Train
from fw.core.store.store import Store
from fw.core.testing import check, tiny
from fw.core.types import Annotation, ConditionSpec, ImageSet, Observations
from fw.plugins.annotators.labels import Labels
from fw.plugins.backbones.dit_blocks import patchify
from fw.plugins.backbones.unet import UNet
from fw.plugins.guidance.joint_features import JointFeatures, unit
from fw.plugins.guidance.pag import PAG
from fw.plugins.joint.hybvit import HybViT
from fw.plugins.joint.jdm import JDM
from fw.plugins.objectives.dispersive import Dispersive
from fw.plugins.priors.uniform import Uniform
from fw.plugins.processes.ddpm import DDPM
from fw.plugins.processes.edm import EDM
from fw.plugins.samplers.ddim import DDIM
from fw.registry import Provider

SPEC = ConditionSpec("class", 4)
SHAPE = (1, 8, 8)
MODELS: dict[str, Joint] = {
    "jdm": JDM(channels=(8, 16), groups=4),
    "jdm with attention": JDM(channels=(8, 16), groups=4, layers=2, attention=(1,)),
    "hybvit": HybViT(depth=3, width=16, heads=2),
    "hybvit without skips": HybViT(depth=4, width=16, heads=2, patch=4, skips=False),
}
each_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())


def network(
    model: Backbone, spec: ConditionSpec | None = SPEC, shape: tuple[int, int, int] = SHAPE
) -> Any:
    """A network whose weights are not what they start from: adaLN-zero would hide its blocks."""
    torch.manual_seed(0)
    made = model.build(shape, spec).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return made


def noisy(count: int = 3, shape: tuple[int, int, int] = SHAPE) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(count, *shape, generator=draw), 500 * torch.rand(count, generator=draw)


# The models


@each_model
def test_it_keeps_the_contract(model: Joint) -> None:
    check(model)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 8), (3, 32, 32)])
@each_model
def test_it_takes_images_of_any_shape_that_fits(model: Joint, shape: tuple[int, int, int]) -> None:
    made, (x, noise) = network(model, shape=shape), noisy(2, shape)
    prediction, logits = made.both(x, noise)
    assert prediction.shape == x.shape
    assert logits.shape == (2, SPEC.size)
    with pytest.raises(ValueError, match="needs images whose sides are multiples"):
        model.check((1, 9, 9))


@each_model
def test_what_it_provides(model: Joint) -> None:
    attends = not isinstance(model, JDM) or bool(model.attention)
    assert model.provides == {"logits", "steerable", "taps", *(["attention"] if attends else [])}
    found: list[tuple[int, ...]] = []
    made = network(model)
    for name, block in made.taps().items():
        block.register_forward_hook(
            lambda _, __, out: found.append((out if isinstance(out, Tensor) else out[0]).shape)
        )
        assert name
    made(*noisy())
    assert len(found) == len(made.taps())
    assert all(len(shape) in (3, 4) and shape[0] == 3 for shape in found)


@each_model
def test_without_classes_it_has_no_head_and_the_rest_starts_from_the_same_weights(
    model: Joint,
) -> None:
    weights = []
    for spec in (None, SPEC):
        torch.manual_seed(0)
        weights.append(model.build(SHAPE, spec).state_dict())
    alone, joint = weights
    assert {name.partition(".")[0] for name in joint.keys() - alone.keys()} <= {"head", "token"}
    assert all(torch.equal(value, joint[name]) for name, value in alone.items())


@pytest.mark.parametrize(
    "change", [{"width": 30, "heads": 4}, {"width": 18, "heads": 3}, {"depth": 2}]
)
def test_a_hybvit_that_does_not_add_up_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not a multiple|greater than or equal to 3"):
        HybViT(**change)


def test_jdm_reads_the_mean_of_every_skip_and_of_the_middle() -> None:
    """Against diffusers' own forward, watched from outside."""
    model = JDM(channels=(8, 16), groups=4, layers=2)
    made, (x, noise) = network(model), noisy()
    unet = made.denoise.unet
    seen: list[Tensor] = []
    hooks = [unet.conv_in.register_forward_hook(lambda _, __, out: seen.append(out))]
    hooks += [
        block.register_forward_hook(lambda _, __, out: seen.extend(out[1]))
        for block in unet.down_blocks
    ]
    hooks.append(unet.mid_block.register_forward_hook(lambda _, __, out: seen.append(out)))
    expected = unet(x, noise, return_dict=False)[0]
    for hook in hooks:
        hook.remove()
    read = torch.cat(
        [each.mean(dim=(2, 3)) for each in seen], dim=1
    )  # (B, 8 + 3 * 8 + 2 * 16 + 16)
    assert read.shape == (3, 80)
    prediction, logits = made.both(x, noise)
    torch.testing.assert_close(prediction, expected)
    torch.testing.assert_close(logits, made.head(read))


def test_long_skips_carry_the_first_half_to_the_second_last_to_first() -> None:
    """Figure 1 of U-ViT, written out for five blocks; without skips the blocks follow each
    other."""
    for skips in (True, False):
        made, (x, noise) = network(HybViT(depth=5, width=16, heads=2, skips=skips)), noisy()
        told = nn.functional.silu(made.level(noise))
        tokens = torch.cat(
            [made.first(patchify(x, 2)) + made.positions, made.token.expand(3, 1, 16)], dim=1
        )

        def block(index: int, tokens: Tensor, made: Any = made, told: Tensor = told) -> Tensor:
            return made.blocks[index](tokens, told, scaled_dot_product, "")

        one = block(0, tokens)
        two = block(1, one)
        last = block(2, two)
        for index, skip in ((3, two), (4, one)):
            if skips:
                last = made.merges[index - 3](torch.cat([last, skip], dim=2))
            last = block(index, last)
        torch.testing.assert_close(made.logits(x, noise), made.head(last[:, -1]))


def test_pag_changes_the_predictions_of_a_hybvit_and_not_its_logits() -> None:
    model = NetworkDenoiser(network(MODELS["hybvit"]), DDPM())
    x, classes = noisy()[0], torch.tensor([0, 1, 2])
    with torch.inference_mode():
        plain, logits = model(x, 0.7), model.logits(x, 0.7)
        guided = Guided(model, (PAG(scale=2.0, layers=(0.0, 1.0)),), classes, 0.01, 80.0)(x, 0.7)
        assert not torch.allclose(plain, guided, atol=1e-4)
        assert torch.equal(model.logits(x, 0.7), logits)
    assert model.layers(x) == ("blocks.0", "blocks.1", "blocks.2")


# The raw timestep


class RawLevel(nn.Module):
    """What the published head does with the timestep: a batch norm beside the features."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 4))

    def logits(self, x: Tensor, noise: Tensor) -> Tensor:
        return self.head(torch.stack([x.mean(dim=(1, 2, 3)), noise], dim=1))


@each_model
def test_a_head_trained_at_one_level_does_not_saturate_at_others_as_with_the_raw_timestep(
    model: Joint,
) -> None:
    sizes = {}
    for made in (network(model), RawLevel()):
        optimizer = torch.optim.AdamW(made.parameters(), lr=1e-3)
        draw = torch.Generator().manual_seed(0)
        for _ in range(30):
            x = torch.randn(16, *SHAPE, generator=draw)
            loss = cross_entropy(made.train().logits(x, torch.zeros(16)), torch.arange(16) % 4)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            there, elsewhere = (
                made.eval().logits(x, torch.full((16,), level)).abs().max()
                for level in (0.0, 999.0)
            )
        sizes[type(made)] = float(elsewhere / there)
    assert sizes.pop(RawLevel) > 100
    [found] = sizes.values()
    assert found < 10


# Labels of some images


@given(
    known=st.floats(0.01, 0.99),
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=5).filter(any),
)
@settings(max_examples=25, deadline=None)
def test_known_labels_are_a_share_of_every_class_and_the_bank_has_them_alone(
    known: float, counts: list[int]
) -> None:
    labels = torch.cat([torch.full((count,), each) for each, count in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    annotator, job = Labels(known=known), Job(Path())
    found = annotator.annotate(Observations(len(labels), labels=labels, classes=len(counts)), job)
    checked_annotation(annotator, found, len(labels))
    assert found.bank is not None
    told = found.conditions >= 0
    assert torch.equal(found.conditions[told], labels[told])
    assert torch.equal(found.bank.sort().values, labels[told].sort().values)
    for each, count in enumerate(counts):
        assert int((found.conditions == each).sum()) == (
            max(1, round(known * count)) if count else 0
        )


def test_which_labels_are_known_depends_on_the_seed_alone() -> None:
    data = Observations(100, labels=torch.arange(100) % 5, classes=5)
    one, again, other = (
        Labels(known=0.3).annotate(data, Job(Path(), seed=seed)).conditions for seed in (0, 0, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_all_labels_are_what_they_were_and_have_the_key_that_they_had() -> None:
    assert Labels().identity() == Labels(known=1.0).identity() == {"name": "labels", "version": 1}
    assert Labels(known=0.5).identity()["known"] == 0.5
    data = Observations(10, labels=torch.arange(10) % 5, classes=5)
    found = Labels().annotate(data, Job(Path()))
    assert found.bank is None
    assert torch.equal(found.conditions, data.labels)  # type: ignore[arg-type]
    check(Labels(known=0.3))


def test_a_missing_condition_is_refused_unless_it_is_announced_and_there_is_a_bank() -> None:
    some = Annotation(SPEC, torch.tensor([0, -1, 2]), bank=torch.tensor([0, 2]))
    assert checked_annotation(Labels(known=0.5), some, 3) is some
    with pytest.raises(StageFailed, match=r"its conditions are -1 to 2, not in 0\.\.3"):
        checked_annotation(Labels(), some, 3)
    with pytest.raises(StageFailed, match="no bank of conditions to draw from"):
        checked_annotation(Labels(known=0.5), Annotation(SPEC, some.conditions), 3)
    for bank in ([-1, 0], []):
        with pytest.raises(StageFailed, match="its bank"):
            checked_annotation(
                Labels(known=0.5),
                Annotation(SPEC, some.conditions, torch.tensor(bank, dtype=torch.long)),
                3,
            )
    with pytest.raises(StageFailed, match=r"its conditions are -2 to 2, not in -1\.\.3"):
        checked_annotation(
            Labels(known=0.5), Annotation(SPEC, torch.tensor([0, -2, 2]), some.bank), 3
        )


# Training with some labels


def trained(
    model: Backbone, conditions: Tensor, folder: Path, **changes: Any
) -> tuple[nn.Module, list[dict[str, float]]]:
    data, annotation = classes_of_brightness()
    folder.mkdir(exist_ok=True)
    given = Annotation(annotation.spec, conditions, bank=annotation.conditions)
    settings = Train.model_validate({"steps": 3, "batch": 16, "warmup": 0, "lr": 1e-2, **changes})
    found = train(model, toys.Unit(), data, given, settings, Job(folder))
    return found, [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def images_of(side: int) -> ImageSet:
    """48 images of noise."""
    draw = torch.Generator().manual_seed(0)
    return ImageSet(torch.randint(0, 256, (48, 1, side, side), dtype=torch.uint8, generator=draw))


GUESSING = pytest.approx(1.5, abs=1)
"""The cross entropy of three classes by untrained weights; log 3 is 1.1, and they are no better."""


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(
        torch.equal(*pair) for pair in zip(one.parameters(), other.parameters(), strict=True)
    )


def test_the_recognition_loss_is_the_mean_over_the_labelled_images() -> None:
    """The closed form: -log p of the label, 0 for class -1, and what is unlabelled moves no
    weight of the head."""
    made = network(MODELS["jdm"])
    model = NetworkDenoiser(made, EDM())
    x0, noise = noisy(4)[0], torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(3))
    sigma, classes = torch.tensor([0.1, 0.5, 1.0, 3.0]), torch.tensor([2, -1, 0, -1])
    _, recognising, recognised = model.joint_loss(x0, sigma, noise, classes)
    for row, label in enumerate(classes.tolist()):
        logits = model.logits(
            (x0 + sigma[:, None, None, None] * noise)[row : row + 1], float(sigma[row])
        )
        expected = -log_softmax(logits, 1)[0, label] if label >= 0 else torch.zeros(())
        torch.testing.assert_close(recognising[row], expected, rtol=1e-4, atol=1e-5)
    assert not recognised[classes < 0].any()
    recognising[classes < 0].sum().backward()
    assert not any(weight.grad.any() for weight in made.head.parameters())


def test_a_joint_model_weighs_the_labelled_images_as_if_they_were_alone(tmp_path: Path) -> None:
    """The logged loss of the first step against the untrained network's, for any labels that are
    left."""
    _, annotation = classes_of_brightness()
    losses = {}
    for share in (1, 2, 4):
        conditions = annotation.conditions.where(torch.arange(48) % share == 0, -1)
        _, [record] = trained(
            TinyJoint(weight=2.0), conditions, tmp_path / str(share), steps=1, batch=48
        )
        losses[share] = (record["train/loss"] - record["train/denoising_loss"]) / 2
    assert all(value == GUESSING for value in losses.values()), losses  # whatever the share


def test_a_batch_without_labels_trains_the_generator_alone_and_nothing_is_nan(
    tmp_path: Path,
) -> None:
    conditions = torch.full((48,), -1)
    found, records = trained(TinyJoint(weight=5.0), conditions, tmp_path / "none")
    for record in records:
        assert record["train/loss"] == pytest.approx(record["train/denoising_loss"])
        assert record["train/accuracy"] == 0
    lighter, _ = trained(TinyJoint(weight=0.1), conditions, tmp_path / "lighter")
    assert same(found, lighter)


def test_at_infinite_weight_recognition_is_all_that_is_learned_and_from_the_labelled_images_alone(
    tmp_path: Path,
) -> None:
    """The same bits as of a training on those images; what only denoises stays as it was made."""
    data, annotation = classes_of_brightness()
    known = torch.arange(48) % 3 != 1
    model, settings = (
        TinyJoint(weight=math.inf),
        Train(steps=30, batch=16, warmup=2, lr=1e-2, weight_decay=0),
    )
    some = annotation.conditions.where(known, -1)
    found, records = trained(
        model, some, tmp_path / "some", steps=30, batch=16, warmup=2, weight_decay=0
    )
    (tmp_path / "few").mkdir()
    labelled = (
        ImageSet(data.images[known]),
        Annotation(annotation.spec, annotation.conditions[known]),
    )
    few = train(model, toys.Unit(), *labelled, settings, Job(tmp_path / "few"))
    assert same(found, few)
    assert records[-1]["train/loss"] < records[0]["train/loss"] == GUESSING
    assert "train/recognition_gradient_ratio" not in records[0]
    fresh: Any = initial_network(model, data.shape, annotation.spec, Job(tmp_path))
    alone: Any = found
    assert torch.equal(alone.image.weight, fresh.image.weight)
    assert not torch.equal(alone.trunk.weight, fresh.trunk.weight)


def test_labelled_images_beside_the_batch_are_recognised_instead_of_those_in_it(
    tmp_path: Path,
) -> None:
    """The cross entropy is that of as many labelled images, even where the batch has none;
    denoising sees the batch."""
    annotation = classes_of_brightness()[1]
    some = annotation.conditions.where(torch.arange(48) >= 45, -1)  # three images of three classes
    of_batch, [plain] = trained(TinyJoint(weight=2.0), some, tmp_path / "batch", steps=1)
    beside, [record] = trained(
        TinyJoint(weight=2.0, labelled=12), some, tmp_path / "beside", steps=1
    )
    assert record["train/denoising_loss"] == plain["train/denoising_loss"]
    assert (record["train/loss"] - record["train/denoising_loss"]) / 2 == GUESSING
    assert not same(of_batch, beside)
    _, records = trained(
        TinyJoint(weight=2.0, labelled=12), some, tmp_path / "longer", steps=150, batch=4
    )
    assert (
        records[-1]["train/accuracy"] > 0.6
    )  # four of 48 images have hardly ever a label among them


def test_labelled_images_beside_the_batch_do_not_reach_the_objectives(tmp_path: Path) -> None:
    """Their term is about the noisy images of the batch, which the same pass denoises."""
    conditions = classes_of_brightness()[1].conditions
    settings = Train(steps=1, batch=16, warmup=0)
    terms = []
    for labelled in (0, 12):
        model = HybViT(depth=3, width=8, heads=2, labelled=labelled)
        folder = tmp_path / str(labelled)
        folder.mkdir()
        data, annotation = images_of(8), Annotation(ConditionSpec("class", 3), conditions)
        dispersive = Objectives([Dispersive()], [None])
        train(model, toys.Unit(), data, annotation, settings, Job(folder), [dispersive])
        terms.append(json.loads((folder / "log.jsonl").read_text())["train/dispersive"])
    assert terms[0] == terms[1]


def test_without_labelled_images_beside_the_batch_the_key_is_what_it_was() -> None:
    assert "labelled" not in JDM().identity()
    assert JDM(labelled=8).identity()["labelled"] == 8


def test_the_log_says_how_long_the_gradient_of_recognition_is_beside_that_of_denoising(
    tmp_path: Path,
) -> None:
    conditions = classes_of_brightness()[1].conditions
    ratios = [
        trained(TinyJoint(weight=weight), conditions, tmp_path / str(weight), steps=1)[1][0][
            "train/recognition_gradient_ratio"
        ]
        for weight in (1.0, 0.25)
    ]
    assert ratios[0] == pytest.approx(4 * ratios[1])
    assert ratios[0] > 0


def test_for_a_conditional_model_no_label_is_the_null_condition(tmp_path: Path) -> None:
    """Trained without any label it is trained as if every condition were dropped; with labels it
    is not."""
    model, (_, annotation) = toys.Linear(), classes_of_brightness()
    nothing, _ = trained(model, torch.full((48,), -1), tmp_path / "nothing", cond_drop=0.0)
    dropped, _ = trained(model, annotation.conditions, tmp_path / "dropped", cond_drop=1 - 1e-9)
    told, _ = trained(model, annotation.conditions, tmp_path / "told", cond_drop=0.0)
    assert same(nothing, dropped)
    assert not same(nothing, told)


RECIPE = """\
fw: 1
name: some
dataset: dots
annotator: {name: labels, known: 0.3}
model: {name: jdm, channels: [8], groups: 4, weight: 0.1}
process: unit
train: {steps: 6, batch: 8, warmup: 1}
sampler: {name: euler, steps: 2}
samples: {count: 6, seeds: 3}
metrics: [{name: gap, space: flat}]
baseline: plain
arms:
  plain: {annotator: null}
  jdm: {}
  guided: {guidance: {name: joint_features, scale: 2}}
  hybvit:
    model: {name: hybvit, width: 8, heads: 2, depth: 3}
    guidance: {name: joint_features, scale: 2}
  drawn: {prior: uniform}
  conditional: {model: {name: unet, channels: [8], groups: 4}}
"""


def planned(*sets: str) -> Plan:
    registry = toys.registry()
    registry.add(Provider("joint"), [HybViT, JDM, JointFeatures, Labels, Uniform, UNet])
    source = parse(RECIPE, "r.yaml")
    source.set(sets)
    return plan(validate(source, registry))


def test_a_recipe_with_some_labels_trains_samples_and_scores_every_kind_of_model(
    tmp_path: Path,
) -> None:
    found = planned()
    Store(tmp_path).create()
    settings = Place(tmp_path, "cpu", threads=1, checkpoint_seconds=20)
    assert run_here(found, (), settings, Heard(), lambda: False) == Outcome()
    arms = found.arms
    assert arms["jdm"].train == arms["guided"].train == arms["drawn"].train
    assert arms["guided"].annotate is not None
    quality = json.loads((tmp_path / arms["guided"].annotate / "quality.json").read_text())
    assert (
        quality["purity"] == quality["used"] == 1
    )  # over the known ones alone, of which each class has some
    stored = Annotation.load(tmp_path / arms["guided"].annotate / "annotation.safetensors")
    assert 0 < int(stored.known.sum()) < len(stored.conditions)
    assert arms["drawn"].prior is not None
    bank = load_file(tmp_path / arms["drawn"].prior / "bank.safetensors")["bank"]
    assert bank.tolist() == [0, 1]
    for arm in ("guided", "hybvit"):
        info = json.loads((tmp_path / arms[arm].sample / "info.json").read_text())
        assert info["nfe"] == 2 * arms[arm].arm.sampler.nfe == arms[arm].nfe
    samples = [
        next((tmp_path / arms[arm].sample).glob("samples-000-*")).read_bytes()
        for arm in ("jdm", "guided")
    ]
    assert samples[0] != samples[1]


def test_guidance_in_features_needs_features_that_can_be_moved_and_something_to_move_them_to() -> (
    None
):
    told = (
        "guidance 'joint_features' needs a joint model whose features can be moved, such as jdm or "
        "hybvit"
    )
    guided = "guidance: {name: joint_features, scale: 2}"
    for fields in ("model: linear", "annotator: null"):
        with pytest.raises(RecipeError) as caught:
            planned(f"arms.bad={{{fields}, {guided}}}")
        assert any(told in problem for problem in caught.value.problems)


# Guidance in the features


def test_joint_features_keeps_the_contract() -> None:
    check(JointFeatures(scale=2.0))


class Separable(nn.Module):
    """Hidden (B, 2) is x's two pixels; what is read are -|h - target|^2 / 2, whose gradients are
    known."""

    def __init__(self) -> None:
        super().__init__()
        self.targets = nn.Parameter(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))

    def forward(self, x: Tensor, noise: Tensor, *_: Any) -> Tensor:
        return 3 * x

    def steered(self, x: Tensor, noise: Tensor, move: Any) -> Tensor:
        [hidden] = move([x.flatten(1)], self.read)
        return 3 * hidden.view_as(x)

    def read(self, hidden: Sequence[Tensor]) -> Tensor:
        return -(hidden[0][:, None] - self.targets).square().sum(dim=2) / 2


def test_features_go_downhill_by_a_share_of_their_length_and_at_scale_2_are_what_is_decoded() -> (
    None
):
    """The gradient of the cross entropy of -|h - t|^2 / 2 is sum_k (p_k - y_k)(t_k - h), here by
    hand."""
    made = Separable()
    model = NetworkDenoiser(made, toys.Unit())
    x, classes = torch.tensor([[0.3, -0.4], [2.0, 0.1]]).view(2, 1, 1, 2), torch.tensor([1, 1])
    hidden = x.flatten(1)
    surplus = made.read([hidden]).softmax(1) - one_hot(classes, 2)  # (B, K)
    slope = surplus @ made.targets - surplus.sum(1, keepdim=True) * hidden
    moved = hidden - 0.2 * hidden.norm(dim=1, keepdim=True) * slope / slope.norm(
        dim=1, keepdim=True
    )
    with torch.inference_mode():
        found = Guided(model, (JointFeatures(scale=2.0, alpha=0.2),), classes, 0.01, 1.0)(x, 0.5)
    torch.testing.assert_close(found, x + 3 * moved.detach().view_as(x))
    assert made.targets.grad is None


def test_the_direction_of_no_gradient_is_none() -> None:
    found = unit(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0], [0.6, 0.8]]))


@cache
def stripes() -> ImageSet:
    return tiny.images(120)


@cache
def striped(name: str) -> NetworkDenoiser:
    """A joint model that was trained on stripes in three directions."""
    model = {"jdm": JDM(channels=(16, 32), weight=0.3), "hybvit": HybViT(width=48, weight=0.3)}[
        name
    ]
    data, process = stripes(), DDPM(prediction="v", schedule="cosine")
    assert data.labels is not None
    annotation = Annotation(ConditionSpec("class", data.classes), data.labels)
    settings = Train(steps=300 if name == "jdm" else 500, batch=32, lr=3e-3, warmup=10, ema=0.95)
    with tempfile.TemporaryDirectory() as folder:
        made = train(model, process, data.without_labels(), annotation, settings, Job(Path(folder)))
    return NetworkDenoiser(made.eval(), process)


def judged(images: Tensor) -> Tensor:
    """The direction of the stripes, told by the nearest mean image: a classifier of its own, in
    clean pixels."""
    data = stripes()
    assert data.labels is not None
    means = torch.stack(
        [to_unit(data.images)[data.labels == each].mean(dim=0) for each in range(data.classes)]
    )
    return torch.cdist(images.flatten(1), means.flatten(1)).argmin(dim=1)


@pytest.mark.parametrize("name", ["jdm", "hybvit"])
def test_samples_agree_more_with_the_class_asked_for_and_less_with_the_opposite_sign(
    name: str,
) -> None:
    """Scale 2 is the paper's rule; scale 0 is its mirror image, the sign of the public code."""
    noise = torch.randn(240, *SHAPE, generator=torch.Generator().manual_seed(1))
    asked = torch.arange(240) % 3
    shares = {}
    for scale in (0.0, 1.0, 2.0):
        denoise = Guided(striped(name), (JointFeatures(scale=scale, alpha=0.5),), asked, 0.01, 80.0)
        with torch.inference_mode():
            samples = DDIM(steps=12).sample(denoise, noise, Draws("joint", rows=range(240)))
        shares[scale] = float((judged(samples) == asked).float().mean())
    assert shares[2.0] > shares[1.0] + 0.05, shares
    assert shares[0.0] < shares[1.0], shares
