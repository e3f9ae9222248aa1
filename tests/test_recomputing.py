"""Activation checkpointing: the same gradients from fewer kept tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from fw.core.diffusion import compiled
from fw.core.errors import FwError, RecipeError
from fw.core.job import Job
from fw.core.kinds import Backbone
from fw.core.learning.parts.objectives import Objectives
from fw.core.learning.parts.part import Part
from fw.core.learning.recomputing import recompute_blocks
from fw.core.learning.train import train
from fw.core.recipe.loading import validate
from fw.core.recipe.source import parse
from fw.core.settings import Train
from fw.core.testing import tiny
from fw.core.types import ConditionSpec
from fw.plugins.backbones.ddpmpp import DDPMPP
from fw.plugins.backbones.dit import DiT
from fw.plugins.backbones.unet import UNet
from fw.plugins.joint.hybvit import HybViT
from fw.plugins.joint.jdm import JDM
from fw.plugins.objectives.repa import REPA
from tests.toys import RECIPE, registry

DIT = DiT(depth=4, width=16, heads=2, patch=2)
BACKBONES = [
    DIT,
    UNet(channels=(8, 16), groups=4, attention=(1,)),
    DDPMPP(width=8, multipliers=(1, 2), dropout=0.3),
    JDM(channels=(8, 16), groups=4),
    HybViT(depth=3, width=16, heads=2, patch=4),
]


def built(backbone: Backbone) -> nn.Module:
    """With weights that are not zero, so that all of them have a gradient."""
    torch.manual_seed(0)
    network = backbone.build(tiny.SHAPE, None)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.1)
    return network


def gradients(network: nn.Module) -> tuple[list[Tensor | None], int]:
    """Of one pass in training mode, and the bytes that it kept for them."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    draw = torch.Generator().manual_seed(0)
    x = torch.randn(4, *tiny.SHAPE, generator=draw)
    torch.manual_seed(1)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        error = network.train()(x, torch.rand(4, generator=draw), None, None, None).square().mean()
    error.backward()
    weights = {weight.data_ptr() for weight in network.parameters()}
    return [weight.grad for weight in network.parameters()], sum(
        size for place, size in kept.items() if place not in weights
    )


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda each: each.name)
def test_gradients_are_the_same_bits_and_less_is_kept(backbone: Backbone) -> None:
    usual, again = built(backbone), built(backbone)
    names = list(again.state_dict())
    recompute_blocks(backbone, again)
    assert list(again.state_dict()) == names
    (expected, all_kept), (found, kept) = gradients(usual), gradients(again)
    for one, other in zip(expected, found, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert torch.equal(one, other)
    assert kept < 0.5 * all_kept


def trained(
    folder: Path, backbone: Backbone, more: tuple[Part, ...] = (), **fields: Any
) -> list[Tensor]:
    folder.mkdir()
    settings = Train(steps=3, batch=6, warmup=0, **fields)
    network = train(
        backbone, tiny.TinyProcess(), tiny.images(12), None, settings, Job(folder), more
    )
    return list(network.parameters())


@pytest.mark.parametrize("backbone", BACKBONES[:3], ids=lambda each: each.name)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_that_recomputes_is_the_usual_one(
    backbone: Backbone, precision: str, tmp_path: Path
) -> None:
    """With an objective that reads a block."""
    found = []
    for recomputed in (False, True):
        parts = (Objectives([REPA(encoder="pixels", hidden=8)], [tiny.features(12)]),)
        fields = {"checkpointing": recomputed, "precision": precision, "accumulate": 2}
        found.append(trained(tmp_path / str(recomputed), backbone, parts, **fields))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("backbone", BACKBONES[:3], ids=lambda each: each.name)
def test_compiled_networks_recompute_too(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    torch.compiler.reset()
    usual = trained(tmp_path / "usual", backbone)
    found = trained(tmp_path / "both", backbone, compile=True, checkpointing=True)
    torch.compiler.reset()
    gaps = torch.cat([(a - b).abs().flatten() for a, b in zip(usual, found, strict=True)])
    assert (gaps > 1e-4).float().mean() < 0.01


class Normed(Backbone):
    """A network with batch norm."""

    name: ClassVar[str] = "normed"

    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        network = DIT.build(shape, condition)
        network.extra = nn.BatchNorm2d(3)
        return network


class Nameless(Backbone):
    """A network without named blocks."""

    name: ClassVar[str] = "nameless"

    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        return nn.Conv2d(1, 1, 1)


@pytest.mark.parametrize(
    ("backbone", "words"), [(Normed(), "extra is a batch norm"), (Nameless(), "names none")]
)
def test_a_network_whose_blocks_cannot_compute_twice_is_refused(
    backbone: Backbone, words: str
) -> None:
    with pytest.raises(FwError, match=f"checkpointing.*'{backbone.name}'.*{words}"):
        recompute_blocks(backbone, backbone.build(tiny.SHAPE, None))


def test_a_recipe_is_refused_if_its_model_names_no_blocks() -> None:
    source = parse(RECIPE, "r.yaml")
    source.set(["train.checkpointing=true"])
    with pytest.raises(RecipeError) as caught:
        validate(source, registry())
    assert all("train" in each and "checkpointing" in each for each in caught.value.problems)
