"""The cosine transform of JPEG as an autoencoder: fixed, orthogonal, and with nothing to learn."""

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d

from fw.core.kinds import Autoencoder, Code
from fw.registry import hookimpl

FW_API = 2


class Example(Autoencoder):
    """The lowest frequencies of each square of pixels; with all of them (`keep: patch`), nothing
    is lost."""

    name: ClassVar[str] = "example"

    patch: int = Field(
        2, ge=1, le=64, description="side of the square of pixels that is transformed"
    )
    keep: int = Field(
        2, ge=1, le=64, description="frequencies that are kept along each side, at most `patch`"
    )

    def latent_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        colours, height, width = shape
        if self.keep > self.patch:
            raise ValueError(
                f"a square of side {self.patch} has {self.patch} frequencies, not {self.keep}"
            )
        if height % self.patch or width % self.patch:
            raise ValueError(
                f"images are {height}x{width}, and sides must be multiples of {self.patch}"
            )
        return colours * self.keep**2, height // self.patch, width // self.patch

    def build(self, shape: tuple[int, int, int]) -> "Cosines":
        self.latent_shape(shape)
        return Cosines(shape[0], self.patch, self.keep)

    def encode(self, network: nn.Module, images: Tensor) -> Code:
        assert isinstance(network, Cosines)
        return Code(network.analyse(images / 127.5 - 1))

    def decode(self, network: nn.Module, latents: Tensor) -> Tensor:
        assert isinstance(network, Cosines)
        return network.synthesise(latents)


class Cosines(nn.Module):
    """The orthonormal cosine transform (DCT-II) of squares that do not overlap, for each colour
    on its own."""

    waves: Tensor

    def __init__(self, colours: int, patch: int, keep: int):
        super().__init__()
        self.colours, self.patch = colours, patch
        positions, frequencies = torch.arange(patch), torch.arange(keep)
        lines = torch.cos(
            math.pi / patch * (positions + 0.5) * frequencies[:, None]
        )  # (keep, patch)
        lines = lines / lines.norm(dim=1, keepdim=True)
        squares = torch.einsum("ux,vy->uvxy", lines, lines).reshape(
            -1, 1, patch, patch
        )  # (keep^2, 1, patch, patch)
        self.register_buffer(
            "waves", squares.repeat(colours, 1, 1, 1)
        )  # (colours * keep^2, 1, patch, patch)

    def analyse(self, x: Tensor) -> Tensor:
        """(B, colours, H, W) -> (B, colours * keep^2, H / patch, W / patch)"""
        return conv2d(x, self.waves, stride=self.patch, groups=self.colours)

    def synthesise(self, latents: Tensor) -> Tensor:
        """The way back: the transform is orthonormal, so it is the transpose."""
        return conv_transpose2d(latents, self.waves, stride=self.patch, groups=self.colours)


@hookimpl
def fw_components() -> list[type[Autoencoder]]:
    return [Example]
