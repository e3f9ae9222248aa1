"""A process's weight multiplies the loss of each image; a weight of 1 is left out, which changes no
bit of the loss or of its gradient."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from toys import Unit

from fw.core.diffusion.denoiser import NetworkDenoiser


class Heavier(Unit):
    """Weights high noise."""

    name: ClassVar[str] = "heavier"

    def weight(self, sigma: Tensor) -> Tensor:
        return 1 + sigma.square()


class Ones(Unit):
    """Says the usual weight itself."""

    name: ClassVar[str] = "ones"

    def weight(self, sigma: Tensor) -> Tensor:
        return super().weight(sigma)


class Further(Heavier):
    """Inherits a weight."""

    name: ClassVar[str] = "further"


class Network(nn.Module):
    """A convolution that knows no noise level."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor, *_: object) -> Tensor:
        made: Tensor = self.inner(x)
        return made


def losses(process: Unit) -> tuple[Tensor, Tensor]:
    """Of each image (B,), and the gradient of their mean."""
    torch.manual_seed(0)
    network, x0, noise = Network(), torch.randn(8, 1, 4, 4), torch.randn(8, 1, 4, 4)
    each = NetworkDenoiser(network, process).loss(x0, LEVELS, noise, None, None)
    each.mean().backward()
    assert network.inner.weight.grad is not None
    return each.detach(), network.inner.weight.grad


LEVELS = torch.linspace(0.1, 0.9, 8)


def test_a_weight_that_a_process_says_or_inherits_multiplies_each_images_loss() -> None:
    usual, _ = losses(Unit())
    for process in (Heavier(), Further()):
        assert process.weighted
        torch.testing.assert_close(losses(process)[0], (1 + LEVELS.square()) * usual)


def test_a_weight_of_one_is_left_out_to_the_bit() -> None:
    assert not Unit().weighted
    assert Ones().weighted
    for without, multiplied in zip(losses(Unit()), losses(Ones()), strict=True):
        assert torch.equal(without, multiplied)
