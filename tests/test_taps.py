"""Reading activations: what a block returns, from the pass that any prediction makes, and
nothing left behind."""

from __future__ import annotations

import pytest
import torch

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.taps import blocks_of, pooled, tapped
from fw.core.errors import FwError
from fw.core.types import ConditionSpec
from fw.plugins.backbones.ddpmpp import DDPMPP
from fw.plugins.backbones.dit import DiT
from fw.plugins.backbones.unet import UNet
from fw.plugins.processes.edm import EDM

SHAPE = (1, 8, 8)
BACKBONES = {
    "unet": (UNet(channels=(16, 32), attention=(1,)), ["down.0", "down.1", "mid", "up.0", "up.1"]),
    "ddpmpp": (DDPMPP(width=8), ["down.0", "down.1", "mid", "up.0", "up.1"]),
    "dit": (DiT(depth=3, width=16, heads=2), ["blocks.0", "blocks.1", "blocks.2"]),
}
every_backbone = pytest.mark.parametrize("name", BACKBONES)


def denoiser(name: str, spec: ConditionSpec | None = None) -> NetworkDenoiser:
    torch.manual_seed(0)
    network = BACKBONES[name][0].build(SHAPE, spec).eval()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return NetworkDenoiser(network, EDM())


def hooks(model: NetworkDenoiser) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks)
        for module in model.network.modules()
    )


@every_backbone
@torch.inference_mode()
def test_blocks_are_named_in_the_order_of_their_calls(name):
    model = denoiser(name)
    called: list[str] = []
    for block, module in blocks_of(model.network).items():
        module.register_forward_hook(lambda *_, block=block: called.append(block))
    model(torch.randn(2, *SHAPE), 0.5)
    assert called == list(blocks_of(model.network)) == BACKBONES[name][1]


@every_backbone
@torch.inference_mode()
def test_all_blocks_are_read_in_one_pass_and_nothing_is_left_behind(name):
    model, x = denoiser(name), torch.randn(3, *SHAPE)
    before = model(x, 0.5)
    model.evaluations = 0
    found = model.features(x, torch.full((3,), 0.5), BACKBONES[name][1])
    assert model.evaluations == 1
    assert hooks(model) == 0
    assert torch.equal(model(x, 0.5), before)
    assert {len(activation) for activation in found.values()} == {3}
    assert {pooled(activation).dim() for activation in found.values()} == {2}


@every_backbone
@torch.inference_mode()
def test_activations_are_those_of_each_images_own_level_and_condition(name):
    model, x = denoiser(name, ConditionSpec("class", 4)), torch.randn(3, *SHAPE)
    last = BACKBONES[name][1][-1]
    sigma, condition = torch.tensor([0.1, 1.0, 10.0]), torch.tensor([0, 1, 2])
    together = model.features(x, sigma, [last], condition)[last]
    alone = [model.features(x[[i]], sigma[[i]], [last], condition[[i]])[last] for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)
    without = model.features(x, sigma, [last])[last]
    assert not torch.allclose(together, without)


@torch.inference_mode()
def test_the_transformers_last_block_is_what_its_last_layer_reads():
    model, x = denoiser("dit"), torch.randn(2, *SHAPE)
    read: list[torch.Tensor] = []
    model.network.get_submodule("last").register_forward_pre_hook(
        lambda _, given: read.append(given[0])
    )
    found = model.features(x, torch.full((2,), 0.5), ["blocks.2"])["blocks.2"]
    assert torch.equal(found, read[0])


@every_backbone
def test_an_unknown_block_is_told_with_those_that_there_are_and_an_error_leaves_no_hook(name):
    model = denoiser(name)
    known = ", ".join(BACKBONES[name][1])
    with pytest.raises(FwError, match="no block 'middle'") as caught:
        model.features(torch.randn(1, *SHAPE), torch.ones(1), ["middle"])
    assert known in str(caught.value)
    with pytest.raises(ZeroDivisionError), tapped(model.network, BACKBONES[name][1]):
        1 / 0  # noqa: B018
    assert hooks(model) == 0
