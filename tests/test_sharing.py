"""Attention guidance computes what comes before the first changed layer once, and this changes no
bit; what it costs is counted."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.guided import Guided
from fw.core.diffusion.sharing import MOST, Order, Shared
from fw.core.diffusion.taps import blocks_of
from fw.core.kinds import Attend, Backbone, Guidance
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
    """Counted by the layers inside each block."""
    model = denoiser(name, sharing=True)
    x = torch.randn(3, *SHAPE)
    model.share([mode], SHAPE)
    shared, unshared = both_ways(model, [mode], x)
    blocks = {
        block: {each for each in module.modules() if not list(each.children())}
        for block, module in blocks_of(model.network).items()
    }
    computed_twice = [
        block
        for block, inside in blocks.items()
        if any(shared[each] == unshared[each] > 0 for each in inside)
    ]
    assert computed_twice == twice
    for block in set(blocks) - set(twice):
        assert all(2 * shared[each] == unshared[each] for each in blocks[block])


@pytest.mark.parametrize(
    ("name", "once"),
    [
        ("unet", ["conv_in", "mid_block.resnets.0", "mid_block.attentions.0.to_v"]),
        ("dit", ["first", "level", "blocks.2.modulation", "blocks.2.attention.qkv"]),
        ("ddpmpp", ["first", "embedding", "middle.0.second", "middle.0.attention.value"]),
    ],
)
@torch.inference_mode()
def test_within_the_first_changed_block_the_way_to_queries_keys_and_values_is_computed_once(
    name, once
):
    model = denoiser(name, sharing=True)
    model.share([PAG(scale=2.0)], SHAPE)
    shared, _ = both_ways(model, [PAG(scale=2.0)], torch.randn(3, *SHAPE))
    inside = model.network.get_submodule("unet") if name == "unet" else model.network
    for path in once:
        leaf = next(each for each in inside.get_submodule(path).modules() if counts(each))
        assert shared[leaf] == 1, path


@pytest.mark.parametrize("name", BACKBONES)
@torch.inference_mode()
def test_what_is_shared_does_not_depend_on_the_order_of_the_list(name):
    modes = [CFG(scale=2.0), SAG(scale=1.5, branch="unconditional"), PAG(scale=2.0)]
    x, costs = torch.randn(3, *SHAPE), set()
    for order in itertools.permutations(modes):
        model = denoiser(name, sharing=True)
        model.share(order, SHAPE)
        with counted(model.network) as computed:
            Guided(model, order, CLASSES, *EDM().sigma_range)(x, 0.5)
        costs.add(computed.total())
    assert len(costs) == 1


@torch.inference_mode()
def test_every_step_of_a_sampler_shares_its_own_beginning():
    """Heun's method predicts twice at each level, of other images."""
    model, mode = denoiser("unet", sharing=True), PAG(scale=2.0)
    model.share([mode], SHAPE)
    guided = Guided(model, [mode], CLASSES, *EDM().sigma_range)
    with counted(model.network) as once:
        guided(torch.randn(3, *SHAPE), 0.5)
    with counted(model.network) as computed:
        Heun(steps=4).sample(guided, torch.randn(3, *SHAPE), Draws("sharing", rows=range(3)))
    assert computed.total() == 7 * once.total()


@torch.inference_mode()
def test_images_that_were_written_into_are_computed_again():
    model, mode = denoiser("unet", sharing=True), PAG(scale=2.0)
    guided = Guided(model, [mode], CLASSES, *EDM().sigma_range)
    x = torch.randn(3, *SHAPE)
    guided(x, 0.5)
    x.add_(1)
    shared = guided(x, 0.5)
    model.sharing = False
    assert torch.equal(shared, guided(x, 0.5))


@torch.inference_mode()
def test_what_is_remembered_is_bounded_and_gone_with_the_next_step():
    model = denoiser("unet", sharing=True)
    model.share([PAG(scale=2.0)], SHAPE)
    x = torch.randn(3, *SHAPE)
    for _ in range(5):
        model(x, 0.5, CLASSES.clone())
    assert len(remembered(model).known) == MOST
    model(torch.randn(3, *SHAPE), 0.25, CLASSES)
    assert len(remembered(model).known) == 1


UNET = UNet(channels=(16, 32), attention=(1,))  # of guidance_zoo
DDPM_UNET = UNet(channels=(128, 256, 256, 256), layers=2, attention=(1,), heads=1, groups=32)
DIT_B = DiT(size="B")
HALFWAY = PAG(scale=2.0, layers=("blocks.6",))
COSTS: dict[str, tuple[Backbone, tuple[int, int, int], Guidance, float]] = {
    "guidance_zoo's U-Net": (UNET, (1, 8, 8), PAG(scale=2.0), 1.77),
    "DDPM's U-Net": (DDPM_UNET, (3, 32, 32), PAG(scale=2.0), 1.77),
    "DDPM's U-Net, seg": (DDPM_UNET, (3, 32, 32), SEG(scale=2.0), 1.77),
    "DiT-B/2, half of its depth": (DIT_B, (4, 32, 32), HALFWAY, 1.56),
    "DiT-B/2, the default layers": (DIT_B, (4, 32, 32), PAG(scale=2.0), 1.63),
    "DiT-B/2, the default layers, seg": (DIT_B, (4, 32, 32), SEG(scale=2.0), 1.65),
}
"""At most so many passes of the network, in floating-point operations. DiT-B/2's default layers
begin after 4 of 12 blocks. With the queries, keys and values of a fifth, 0.24 of a block, 0.353 of
a pass is shared, so seg costs 1.647. pag does not attend in the 4 changed layers: 1.629."""


@pytest.mark.parametrize("name", COSTS)
def test_attention_guidance_costs_less_than_another_pass_in_any_order(name):
    backbone, shape, mode, most = COSTS[name]
    cfg = CFG(scale=2.0)
    with FakeTensorMode(), torch.inference_mode():
        network = backbone.build(shape, ConditionSpec("class", 10)).eval().requires_grad_(False)
        x, classes = torch.randn(2, *shape), torch.zeros(2, dtype=torch.long)

        def cost(*modes: Guidance) -> int:
            model = NetworkDenoiser(network, EDM())
            model.share(modes, shape)
            with FlopCounterMode(display=False) as counter:
                Guided(model, modes, classes, *EDM().sigma_range)(x, 0.5)
            return counter.get_total_flops()

        one = cost()
        assert cost(mode) <= most * one
        assert cost(cfg) == 2 * one
        assert cost(cfg, mode) == cost(mode, cfg) == cost(mode) + one


class Careless(nn.Module):
    """Writes into what one of its layers returned, and calls another one twice."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.twice, self.out = (nn.Conv2d(1, 1, 3, padding=1) for _ in range(3))

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        condition: Tensor | None,
        dropped: Tensor | None,
        attend: Attend,
    ) -> Tensor:
        x = self.twice(self.written(x).add_(1))
        tokens = x.flatten(2).transpose(1, 2)[:, None]
        mixed = attend(tokens, tokens, tokens, "mid") if attend else tokens
        return self.out(self.twice(mixed[:, 0].transpose(1, 2).unflatten(2, x.shape[2:])))


@torch.inference_mode()
def test_a_layer_that_is_called_twice_or_written_into_is_computed_again():
    torch.manual_seed(0)
    model, mode = NetworkDenoiser(Careless(), EDM()), PAG(scale=2.0, soft=0.5)
    model.share([mode], SHAPE)
    assert remembered(model).order == Order({"mid": []})
    x = torch.randn(3, *SHAPE)
    guided = Guided(model, [mode], None, *EDM().sigma_range)
    shared = guided(x, 0.5)
    model.sharing = False
    assert torch.equal(shared, guided(x, 0.5))


def both_ways(
    model: NetworkDenoiser, modes: Sequence[Guidance], x: Tensor
) -> list[Counter[nn.Module]]:
    """How often each layer computed, with and without sharing."""
    counters = []
    for model.sharing in (True, False):
        with counted(model.network) as computed:
            Guided(model, modes, CLASSES, *EDM().sigma_range)(x, 0.5)
        counters.append(computed)
    return counters


def remembered(model: NetworkDenoiser) -> Shared:
    assert model._shared is not None
    return model._shared


def counts(module: nn.Module) -> bool:
    """Whether it has weights of its own."""
    return any(True for _ in module.parameters(recurse=False))


@contextmanager
def counted(network: nn.Module) -> Iterator[Counter[nn.Module]]:
    """How often the layers compute: each calls a function of torch, but not if it is replayed."""
    computed: Counter[nn.Module] = Counter()

    def counting(module: nn.Module, compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def forward(*given: Tensor) -> Tensor:
            computed.update([module])
            return compute(*given)

        return forward

    leaves = [each for each in network.modules() if not list(each.children())]
    for leaf in leaves:
        leaf.forward = counting(leaf, leaf.forward)
    try:
        yield computed
    finally:
        for leaf in leaves:
            vars(leaf).pop("forward")


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
