"""An autoencoder that loses nothing, and one with each fault that the contract of an autoencoder
names."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from fw.core.diffusion.pixels import to_unit
from fw.core.kinds import Autoencoder, Code
from fw.core.testing import Clause, autoencoder


class Same(Autoencoder):
    """The images themselves."""

    name: ClassVar[str] = "same"

    def latent_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        return shape

    def build(self, shape: tuple[int, int, int]) -> nn.Module:
        return nn.Identity()

    def encode(self, network: nn.Module, images: Tensor) -> Code:
        return Code(to_unit(images))

    def decode(self, network: nn.Module, latents: Tensor) -> Tensor:
        return latents.clone()


class Wrong(Same):
    """Has one fault."""

    name: ClassVar[str] = "wrong"
    fault: str = "none"

    def latent_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        if self.fault == "shape":
            return shape[0], shape[1] + 1, shape[2]
        return shape

    def build(self, shape: tuple[int, int, int]) -> nn.Module:
        return (
            nn.BatchNorm2d(shape[0])
            if self.fault == "remembers"
            else nn.Conv2d(shape[0], shape[0], 1)
        )

    def encode(self, network: nn.Module, images: Tensor) -> Code:
        x = to_unit(images)
        match self.fault:
            case "double":
                return Code(x.double())
            case "batch":
                return Code(x - x.mean(dim=0))
            case "random":
                return Code(x + torch.randn_like(x))
            case "negative":
                return Code(x, -torch.ones_like(x))
            case "collapsed":
                return Code(torch.zeros_like(x))
            case "remembers":
                return Code(network.train()(x))
            case "untrained":
                return Code(network(x))
        return Code(x)

    def decode(self, network: nn.Module, latents: Tensor) -> Tensor:
        match self.fault:
            case "infinite":
                return latents / 0
            case "small":
                return latents[:, :, 1:]
            case "in place":
                return latents.mul_(2)
        return latents.clone()


FAULTS: dict[str, tuple[Clause, str]] = {
    "shape": (autoencoder.codes_as_promised, "(1, 1, 8, 8), not torch.float32 (1, 1, 9, 8)"),
    "double": (autoencoder.codes_as_promised, "torch.float64"),
    "batch": (autoencoder.batch_does_not_matter, "latents of images [0] of 4"),
    "random": (autoencoder.pure, "torch's global random generator"),
    "negative": (autoencoder.codes_as_promised, "std is negative"),
    "collapsed": (autoencoder.images_differ, "latents of two images"),
    "remembers": (autoencoder.pure, "encode() writes into the network"),
    "untrained": (autoencoder.always_the_same_network, "two networks"),
    "infinite": (autoencoder.images_as_promised, "not finite"),
    "small": (autoencoder.images_as_promised, "(4, 1, 7, 8)"),
    "in place": (autoencoder.pure, "decode() writes into the latents"),
}
"""The clause that a fault breaks, and what is said of it."""
