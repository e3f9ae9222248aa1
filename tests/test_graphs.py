"""Networks are compiled without a break in the graph and once for all noise levels, in a training
step and in a sampling step, with and without attention guidance; and give the same numbers."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.guided import Guided
from fw.core.diffusion.taps import blocks_of, tapped
from fw.core.kinds import Backbone, Steering
from fw.core.randomness import Draws
from fw.core.types import ConditionSpec
from fw.plugins.backbones.ddpmpp import DDPMPP
from fw.plugins.backbones.dit import DiT
from fw.plugins.backbones.unet import UNet
from fw.plugins.guidance.cfg import CFG
from fw.plugins.guidance.pag import PAG
from fw.plugins.guidance.sag import SAG
from fw.plugins.guidance.seg import SEG
from fw.plugins.processes.ddpm import DDPM
from fw.plugins.samplers.heun import Heun

SHAPE = (1, 8, 8)
CLASSES = torch.tensor([0, 1, 2])
BACKBONES: dict[str, Backbone] = {
    "unet": UNet(channels=(8, 16), groups=4, attention=(1,)),
    "ddpmpp": DDPMPP(width=8),
    "dit": DiT(depth=4, width=16, heads=2),
}
MODES: dict[str, list[Steering]] = {
    "cfg and pag": [CFG(scale=2.0), PAG(scale=2.0)],
    "seg": [SEG(scale=2.0, blur=1.0)],
    "sag": [SAG(scale=1.5)],
}
PASSES = {"cfg and pag": 3, "seg": 2, "sag": 3}
"""Kinds of calls: the usual one, with no condition, with changed layers, of other images."""

each_backbone = pytest.mark.parametrize("name", BACKBONES)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is compiled yet. torch's trace of its compiler, which pytest would collect, is off:
    it takes most of the time."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def network(backbone: Backbone) -> nn.Module:
    torch.manual_seed(0)
    made = backbone.build(SHAPE, ConditionSpec("class", 3)).eval()
    for weight in made.parameters():
        nn.init.normal_(weight, std=0.1)
    return made


def graphs() -> int:
    """How many were compiled; AssertionError if one is broken."""
    assert not counters["graph_break"], counters["graph_break"]
    return counters["stats"]["unique_graphs"]


@each_backbone
def test_a_training_step_is_one_graph_also_where_blocks_are_read(name):
    """With `fullgraph`, a break is an error."""
    plain = network(BACKBONES[name])
    compiled = copy.deepcopy(plain)
    compiled.compile(backend="aot_eager", fullgraph=True)
    blocks = list(blocks_of(plain))[1:3]
    for step in range(3):
        x, noise = torch.randn(3, *SHAPE), torch.rand(3)
        inputs = x, noise, CLASSES, torch.tensor([True, False, step > 1]), None
        gradients, activations = [], []
        for each in (plain, compiled):
            with tapped(each, blocks) as read:
                raw = each(*inputs)
            (raw.square().mean() + sum(read[block].square().mean() for block in blocks)).backward()
            gradients.append([weight.grad for weight in each.parameters()])
            activations.append([read[block] for block in blocks])
        for left, right in zip(*activations, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6)
        for left, right in zip(*gradients, strict=True):
            if left is not None:
                torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)
    assert graphs() == 1


@pytest.mark.parametrize(
    ("name", "modes"),
    [*((name, "cfg and pag") for name in BACKBONES), ("unet", "sag"), ("dit", "seg")],
)
def test_sampling_is_one_graph_for_each_kind_of_call_at_all_noise_levels(name, modes):
    expected, compiled = samples(BACKBONES[name], MODES[modes], whole)
    torch.testing.assert_close(compiled, expected, rtol=1e-4, atol=1e-4)
    assert graphs() == PASSES[modes]


def test_blocks_that_are_alike_are_compiled_once_for_any_depth():
    expected, compiled = samples(BACKBONES["dit"], MODES["cfg and pag"], each_block)
    torch.testing.assert_close(compiled, expected, rtol=1e-4, atol=1e-4)
    few = graphs()
    torch.compiler.reset()
    counters.clear()
    samples(DiT(depth=10, width=16, heads=2), MODES["cfg and pag"], each_block)
    assert graphs() == few


def test_the_denoiser_takes_tensors_alone_and_is_compiled_once_for_all_noise_levels():
    model = NetworkDenoiser(network(BACKBONES["unet"]), DDPM())
    x = torch.randn(3, *SHAPE)
    with torch.inference_mode():
        expected = [model(x, sigma, CLASSES) for sigma in (0.1, 0.2, 3.0, 40.0)]
        compiled = torch.compile(model.denoised, backend="aot_eager", fullgraph=True)
        vars(model)["denoised"] = compiled
        for sigma, prediction in zip((0.1, 0.2, 3.0, 40.0), expected, strict=True):
            torch.testing.assert_close(model(x, sigma, CLASSES), prediction, rtol=1e-5, atol=1e-5)
    assert graphs() == 1


def whole(network: nn.Module) -> None:
    network.compile(backend="aot_eager", fullgraph=True)


def each_block(network: Any) -> None:
    for block in network.repeated:
        block.compile(backend="aot_eager", fullgraph=True)


@torch.inference_mode()
def samples(
    backbone: Backbone, modes: Sequence[Steering], compile: Callable[[nn.Module], None]
) -> list[Tensor]:
    """Samples in 3 evaluations, of the network as it is and compiled."""
    drawn, noise = [], torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    for compiled in (False, True):
        model = NetworkDenoiser(network(backbone), DDPM())
        if compiled:
            compile(model.network)
        model.share(modes, SHAPE)
        guided = Guided(model, modes, CLASSES, *DDPM().sigma_range)
        drawn.append(Heun(steps=2).sample(guided, noise, Draws("graphs", rows=range(3))))
    return drawn
