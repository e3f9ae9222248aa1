"""Guidance: what a step costs, in passes of the network without guidance.

Counted in floating-point operations, without computing them: fake tensors have a shape alone. And
whether one pass of a batch twice as large is cheaper than two passes, for classifier-free guidance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.speed import counted
from bench.speed.interleaved import paired, timed
from bench.speed.row import Goal, Row, cost
from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.guided import Guided
from fw.core.kinds import Backbone, Guidance
from fw.core.types import ConditionSpec
from fw.plugins.backbones.dit import DiT
from fw.plugins.backbones.unet import UNet
from fw.plugins.guidance.attention import Layers
from fw.plugins.guidance.cfg import CFG
from fw.plugins.guidance.pag import PAG
from fw.plugins.processes.edm import EDM

WITHOUT = "a step without guidance"
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Network:
    name: str
    backbone: Backbone
    shape: Shape
    goal: float
    """Passes that pag should cost at most; with cfg it is one more."""
    layers: Layers | None = None


DDPM_UNET = UNet(channels=(128, 256, 256, 256), layers=2, attention=(1,), heads=1, groups=32)
"""For CIFAR-10 (arXiv 2006.11239, appendix B)."""

RECIPES = Network("guidance_zoo's U-Net", UNet(attention=(1,)), (1, 8, 8), 1.77)
LARGE = (
    Network("DDPM's U-Net", DDPM_UNET, (3, 32, 32), 1.77),
    Network("DiT-B/2, its default layers", DiT(size="B"), (4, 32, 32), 1.56),
    Network(
        "DiT-B/2, from half of its depth",
        DiT(size="B"),
        (4, 32, 32),
        1.56,
        ("blocks.6",),
    ),
)


@dataclass(frozen=True)
class Size:
    networks: tuple[Network, ...] = (RECIPES, *LARGE)
    batches: tuple[int, ...] = (8, 250)
    pairs: int = 12


SMALL = Size(networks=(RECIPES,), batches=(2,), pairs=1)


def rows(size: Size = Size()) -> Iterator[Row]:
    cfg = CFG(scale=2.0)
    for network in size.networks:
        pag = PAG(scale=2.0, layers=network.layers)
        for name, goal, modes in (
            ("pag", network.goal, [pag]),
            ("[cfg, pag]", network.goal + 1, [cfg, pag]),
            ("[pag, cfg]", network.goal + 1, [pag, cfg]),
        ):
            value = passes(network.backbone, network.shape, modes)
            yield Row(f"{name} on {network.name}", WITHOUT, value, "passes", Goal(goal))
    for batch in size.batches:
        yield doubled(batch, size.pairs)


def passes(backbone: Backbone, shape: Shape, modes: Sequence[Guidance]) -> float:
    """What a step with these modes costs, in passes of the network."""
    with FakeTensorMode(), torch.inference_mode():
        network = backbone.build(shape, ConditionSpec("class", 10)).eval().requires_grad_(False)
        x, classes = torch.randn(2, *shape), torch.zeros(2, dtype=torch.long)

        def flops(modes: Sequence[Guidance]) -> int:
            model = NetworkDenoiser(network, EDM())
            model.share(modes, shape)
            guided = Guided(model, modes, classes, *EDM().sigma_range)
            return counted.flops(lambda: guided(x, 0.5))

        return flops(modes) / flops([])


def doubled(batch: int, pairs: int) -> Row:
    """One pass of good and worse images together, beside two passes as fw does them."""
    network = UNet(attention=(1,)).build((1, 8, 8), ConditionSpec("class", 10)).eval()
    x, level = torch.randn(batch, 1, 8, 8), torch.zeros(batch)
    classes, null = torch.zeros(batch, dtype=torch.long), torch.zeros(batch, dtype=torch.bool)
    twice = [torch.cat([each, each]) for each in (x, level, classes)]
    dropped = torch.cat([null, ~null])

    @torch.inference_mode()
    def together() -> None:
        for _ in range(10):
            network(*twice, dropped)

    @torch.inference_mode()
    def apart() -> None:
        for _ in range(10):
            network(x, level, classes)
            network(x, level, None)

    pair = paired(timed(apart), timed(together), pairs)
    return cost(f"cfg in two passes, {batch} images", "one pass of twice as many", pair)
