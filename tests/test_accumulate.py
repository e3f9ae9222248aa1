"""Batches that pass through the network in parts: the same step as in one, and refused where images
meet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from fw.core.errors import FwError, RecipeError
from fw.core.job import Job
from fw.core.kinds import Backbone, Objective
from fw.core.learning.parts.objectives import Objectives
from fw.core.learning.parts.online import OnlineGrouping
from fw.core.learning.parts.part import Part
from fw.core.learning.train import train
from fw.core.recipe.loading import validate
from fw.core.recipe.source import read
from fw.core.settings import Train
from fw.core.testing import tiny
from fw.core.types import Annotation, ConditionSpec
from fw.plugins.annotators.online import OnlineClusters
from fw.plugins.backbones.ddpmpp import DDPMPP
from fw.plugins.backbones.dit import DiT
from fw.plugins.backbones.unet import UNet
from fw.plugins.joint.jdm import JDM
from fw.plugins.objectives.contrastive import Contrastive
from fw.plugins.objectives.dispersive import Dispersive
from fw.plugins.objectives.repa import REPA
from fw.registry import installed

TINY = Path(__file__).parent / "tiny.yaml"
UNET = UNet(channels=(8, 16), groups=4)
JOINT = {"channels": (8, 16), "groups": 4, "weight": 0.5, "head_dropout": 0.0}
CLASSES = ConditionSpec("class", tiny.CLASSES)


def annotation(count: int, unknown: int = 0) -> Annotation:
    """Three classes in turn; the first `unknown` images have none."""
    classes = torch.arange(count) % tiny.CLASSES
    classes[:unknown] = -1
    return Annotation(CLASSES, classes)


def repa(**fields: Any) -> Objective:
    return REPA(encoder="pixels", hidden=8, **fields)


def trained(
    folder: Path,
    parts: int,
    backbone: Backbone = UNET,
    known: Annotation | None = None,
    more: tuple[Part, ...] = (),
    **fields: Any,
) -> tuple[list[Tensor], list[dict[str, float]]]:
    """The weights after two steps, and the log."""
    settings = Train(steps=2, batch=12, warmup=0, lr=1e-3, ema=0.0, accumulate=parts, **fields)
    job = Job(folder / str(parts))
    job.folder.mkdir()
    network = train(backbone, tiny.TinyProcess(), tiny.images(24), known, settings, job, more)
    job.finish()
    lines = (job.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [each.detach() for each in network.parameters()], [json.loads(line) for line in lines]


def same(folder: Path, parts: int, *ratios: str, make: Any = tuple, **setting: Any) -> None:
    """Adam's first steps have the size of the learning rate whatever the gradient: a weight whose
    gradient is rounding alone may differ by that, so gradients are compared in the log's norm and
    weights by most of them."""
    (one, log), (other, split) = (
        trained(folder, count, more=make(), **setting) for count in (1, parts)
    )
    for whole, in_parts in zip(log, split, strict=True):
        assert whole.keys() == in_parts.keys()
        for name in set(whole) - set(ratios):
            assert in_parts[name] == pytest.approx(whole[name], rel=2e-4, abs=1e-6), name
    gaps = torch.cat([(a - b).abs().flatten() for a, b in zip(one, other, strict=True)])
    assert (gaps > 2e-5).float().mean() < 0.01


@pytest.mark.parametrize("parts", [2, 3, 12])
def test_a_step_in_parts_is_the_step_of_the_batch(tmp_path: Path, parts: int) -> None:
    same(tmp_path, parts, known=annotation(24), flip=True)


def test_the_gradient_is_that_of_the_batch(tmp_path: Path) -> None:
    """Down a plain gradient, to the last digits, in double precision."""

    def weights(parts: int) -> Tensor:
        torch.set_default_dtype(torch.float64)
        try:
            found, _ = trained(tmp_path, parts, clip=None, backbone=UNET)
        finally:
            torch.set_default_dtype(torch.float32)
        return torch.cat([each.flatten() for each in found])

    one, other = weights(1), weights(4)
    assert one.dtype == torch.float64
    assert ((one - other).abs() < 1e-6).double().mean() > 0.999


@pytest.mark.parametrize("unknown", [0, 17])
@pytest.mark.parametrize("labelled", [0, 6])
def test_recognition_of_the_images_with_a_class_is_split_by_their_number(
    tmp_path: Path, unknown: int, labelled: int
) -> None:
    backbone = JDM(**JOINT, labelled=labelled)
    known = annotation(24, unknown)
    same(tmp_path, 3, "train/recognition_gradient_ratio", backbone=backbone, known=known)


@pytest.mark.parametrize("interval", [None, (0.1, 0.7)])
def test_an_objective_of_single_images_is_split_by_those_that_it_takes(
    tmp_path: Path, interval: tuple[float, float] | None
) -> None:
    def parts() -> tuple[Part, ...]:
        return (Objectives([repa(interval=interval)], [tiny.features(24)]),)

    same(tmp_path, 4, "train/repa_gradient_ratio", make=parts)


def test_an_online_annotator_learns_from_the_whole_batch(tmp_path: Path) -> None:
    annotator = OnlineClusters(clusters=3, queue=24)
    same(tmp_path, 3, make=lambda: (OnlineGrouping(annotator),))


def test_augmentation_transforms_the_whole_batch(tmp_path: Path) -> None:
    backbone = DDPMPP(width=8, multipliers=(1, 2))
    same(tmp_path, 2, backbone=backbone, augment=0.5)


def test_a_network_gets_no_more_images_at_once_than_a_part_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    usual = nn.Conv2d.forward

    def forward(layer: nn.Conv2d, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            sizes.append(len(x))
        return usual(layer, x)

    monkeypatch.setattr(nn.Conv2d, "forward", forward)
    trained(tmp_path, 4)
    assert set(sizes) == {3}


def problems(*sets: str) -> list[str]:
    source = read(TINY)
    source.set(sets)
    with pytest.raises(RecipeError) as caught:
        validate(source, installed())
    return caught.value.problems


def test_parts_that_are_not_equal_are_refused() -> None:
    [problem] = problems("train.accumulate=5")
    assert "accumulate" in problem
    assert "32" in problem


@pytest.mark.parametrize(
    "objective", ["contrastive", "dispersive", "{name: repa, encoder: pixels, shuffled: true}"]
)
def test_an_objective_that_compares_images_is_refused(objective: str) -> None:
    found = problems("train.accumulate=4", f"objectives={objective}")
    name = "repa" if "repa" in objective else objective
    assert all("train" in each and f"'{name}'" in each for each in found)


def test_labelled_images_that_do_not_divide_are_refused() -> None:
    model = "{name: jdm, channels: [8, 16], groups: 4, labelled: 6}"
    found = problems(
        "train.accumulate=4", f"model={model}", "arms={unconditional: {annotator: null}}"
    )
    assert any("jdm" in each and "6" in each for each in found)


class Normed(Backbone):
    """A network with batch norm."""

    name: ClassVar[str] = "normed"

    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        network = DiT(depth=1, width=8, heads=1, patch=4).build(shape, condition)
        network.extra = nn.Sequential(nn.BatchNorm2d(3))
        return network


def test_a_network_with_batch_norm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FwError, match=r"accumulate.*'normed'.*extra\.0 is a batch norm"):
        trained(tmp_path, 2, backbone=Normed())


def test_which_objectives_are_of_single_images() -> None:
    assert repa().per_image
    assert not repa(shuffled=True).per_image
    assert not Contrastive().per_image
    assert not Dispersive().per_image
