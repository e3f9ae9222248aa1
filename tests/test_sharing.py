"""Attention guidance computes the blocks before the first changed layer once, and this changes
no bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import nn

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.guided import Guided
from fw.core.diffusion.taps import blocks_of, watched
from fw.core.kinds import Guidance
from fw.core.randomness import Draws
from fw.core.types import ConditionSpec
from fw.plugins.backbones.ddpmpp import DDPMPP
from fw.plugins.backbones.dit import DiT
from fw.plugins.backbones.unet import UNet
from fw.plugins.guidance.cfg import CFG
from fw.plugins.guidance.pag import PAG
from fw.plugins.guidance.sag import SAG
from fw.plugins.guidance.seg import SEG
from fw.plugins.processes.edm import EDM
from fw.plugins.samplers.heun import Heun

SHAPE = (1, 8, 8)
CLASSES = torch.tensor([0, 1, 2])
BACKBONES = {
    "unet": UNet(channels=(16, 32), attention=(1,)),
    "ddpmpp": DDPMPP(width=8),
    "dit": DiT(depth=5, width=16, heads=2),
}
MODES: dict[str, list[Guidance]] = {
    "pag": [PAG(scale=2.0)],
    "seg": [SEG(scale=2.0)],
    "sag": [SAG(scale=1.5)],
    "sag without the condition": [SAG(scale=1.5, branch="unconditional")],
    "pag on all layers": [PAG(scale=2.0, layers=(0.0, 1.0))],
    "all at once": [CFG(scale=2.0), SAG(scale=1.5), PAG(scale=2.0), SEG(scale=2.0)],
}


def denoiser(name: str, sharing: bool) -> NetworkDenoiser:
    torch.manual_seed(0)
    network = BACKBONES[name].build(SHAPE, ConditionSpec("class", 3)).eval()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    model = NetworkDenoiser(network, EDM())
    model.sharing = sharing
    return model


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("modes", MODES)
@torch.inference_mode()
def test_samples_have_the_same_bits_with_and_without_sharing(name, modes):
    noise = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    samples, evaluations = [], []
    for sharing in (True, False):
        model = denoiser(name, sharing)
        guided = Guided(model, MODES[modes], CLASSES, *EDM().sigma_range)
        draws = Draws("sharing", rows=range(3))
        samples.append(Heun(steps=4).sample(guided, noise, draws))
        evaluations.append(model.evaluations)
    assert torch.equal(*samples)
    assert evaluations[0] == evaluations[1]


@pytest.mark.parametrize(
    ("name", "mode", "twice"),
    [
        ("unet", PAG(scale=2.0), ["mid", "up.0", "up.1"]),
        ("unet", PAG(scale=2.0, layers=("down",)), ["down.1", "mid", "up.0", "up.1"]),
        ("ddpmpp", PAG(scale=2.0), ["mid", "up.0", "up.1"]),
        ("ddpmpp", SEG(scale=2.0, layers=("up.0",)), ["up.0", "up.1"]),
        ("dit", PAG(scale=2.0, layers=("blocks.3",)), ["blocks.3", "blocks.4"]),
        ("dit", SEG(scale=2.0), ["blocks.2", "blocks.3", "blocks.4"]),
        ("dit", PAG(scale=2.0, layers=(0.0, 1.0)), [f"blocks.{i}" for i in range(5)]),
    ],
    ids=lambda value: value.name if hasattr(value, "name") else "",
)
@torch.inference_mode()
def test_only_blocks_from_the_first_changed_layer_on_are_computed_twice(name, mode, twice):
    """Counted by a layer inside each block, which a replayed block does not reach."""
    model = denoiser(name, sharing=True)
    x = torch.randn(3, *SHAPE)
    model.layers(x)
    inside = {block: deepest_first(module) for block, module in blocks_of(model.network).items()}
    counts = []
    for model.sharing in (True, False):
        computed: Counter[str] = Counter()
        with watched(inside, before=counting(computed)):
            Guided(model, [mode], CLASSES, *EDM().sigma_range)(x, 0.5)
        counts.append(computed)
    shared, unshared = counts
    assert [block for block in unshared if shared[block] == unshared[block]] == twice
    assert all(2 * shared[block] == unshared[block] for block in unshared if block not in twice)


def counting(computed: Counter[str]) -> Callable[[str], None]:
    return lambda block: computed.update([block])


def deepest_first(block: nn.Module) -> nn.Module:
    """The first module in a block that has none inside, or is called before those that have."""
    return next(module for module in block.modules() if not list(module.children()))


@torch.inference_mode()
def test_after_an_error_in_a_changed_layer_the_network_computes_again():
    model, x = denoiser("unet", sharing=True), torch.randn(3, *SHAPE)
    before = model(x, 0.5, CLASSES)

    class Broken(PAG):
        def worse(self, *given, **named):
            def fail(*_):
                raise ZeroDivisionError

            return self.changed(given[0], given[1], given[2], given[3], fail)

    with pytest.raises(ZeroDivisionError):
        Guided(model, [Broken(scale=2.0)], CLASSES, *EDM().sigma_range)(x, 0.5)
    other = torch.randn(3, *SHAPE)
    assert torch.equal(model(x, 0.5, CLASSES), before)
    assert not torch.equal(model(other, 0.5, CLASSES), before)
    assert not [name for name, module in model.network.named_modules() if "forward" in vars(module)]
