"""Whether a network ignores its condition: two conditions give one prediction, to the last bit.

Usual conditioning starts at zero (adaLN-Zero, arXiv 2212.09748), so equal predictions of a network
that is not trained prove nothing. They do once all that a training can change has been moved at
random.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.pixels import per_image
from fw.core.randomness import forked
from fw.core.types import ConditionSpec

IMAGES = 4
"""Images that are tried, each at a noise level of its own and with two conditions."""
MOVE = 0.05
"""Standard deviation of what is added to the weights, as in the contract kit of backbones."""


@torch.no_grad()
def ignores_condition(
    model: NetworkDenoiser, spec: ConditionSpec, shape: tuple[int, int, int], draw: Generator
) -> bool:
    """Whether D(x; sigma, c) is the same for two conditions, for images (C, H, W) at noise levels
    from the lowest to the highest. The model is called twice; its weights are changed."""
    if spec.form == "class" and spec.size < 2:
        return False  # there are no two
    move(model.network.eval(), draw)
    low, high = (math.log(max(each, 1e-3)) for each in (model.sigma_min, model.sigma_max))
    sigma = torch.linspace(low, high, IMAGES, device=draw.device).exp()
    noise = torch.randn(IMAGES, *shape, generator=draw, device=draw.device)
    with forked():
        one, other = (
            model.denoised(per_image(sigma) * noise, sigma, condition, None)
            for condition in two_conditions(spec, draw)
        )
    return torch.equal(one, other)


def move(network: nn.Module, draw: Generator) -> None:
    """Add small random numbers to whatever is learned."""
    for weight in network.parameters():
        if weight.requires_grad:
            far = torch.randn(weight.shape, generator=draw, device=draw.device)
            weight.add_(MOVE * far.to(weight))


def two_conditions(spec: ConditionSpec, draw: Generator) -> tuple[Tensor, Tensor]:
    """Two conditions for each image: classes (IMAGES,), vectors (IMAGES, D) or tokens (IMAGES, n,
    D)."""
    if spec.form == "class":
        one = torch.arange(IMAGES, device=draw.device) % spec.size
        return one, (one + 1) % spec.size
    sizes = (spec.size,) if spec.form == "vector" else (spec.count, spec.size)
    both = torch.randn(2, IMAGES, *sizes, generator=draw, device=draw.device)
    return both[0], both[1]
