"""Images to latents and back; the model is trained and sampled in the latents (arXiv
2112.10752)."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field
from torch import Tensor, nn

from fw.registry import Component, Neutral


class Code(NamedTuple):
    """Latents of images, float32 (B, C, h, w). Training takes `mean`. With a `std`, of the same
    shape, it takes a fresh draw of N(mean, std) at each step."""

    mean: Tensor
    std: Tensor | None = None


class Autoencoder(Component):
    """Images to latents and back (arXiv 2112.10752): the model is trained and sampled in the
    latents.

    Encoders, annotators and metrics still see pixels. The training split is encoded once, and
    samples are decoded. fw does not train autoencoders.
    """

    kind: ClassVar[str] = "autoencoder"

    stored: Annotated[Literal["fp32", "fp16"], Neutral("fp32")] = Field(
        "fp32",
        description="numbers that latents are stored in; fp16 takes half the room, and rounds them "
        "to 11 bits",
    )

    @abstractmethod
    def latent_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, h, w) of the latents of images (C, H, W), or ValueError if it cannot take them.
        Called when a recipe is validated, so it must not need the files."""

    @abstractmethod
    def build(self, shape: tuple[int, int, int]) -> nn.Module:
        """The trained network for images (C, H, W). fw puts it into eval mode and takes no
        gradients."""

    @abstractmethod
    def encode(self, network: nn.Module, images: Tensor) -> Code:
        """uint8 images (B, C, H, W) to latents of about unit variance."""

    @abstractmethod
    def decode(self, network: nn.Module, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) to float32 images (B, C, H, W) in -1..1; fw clamps what lies
        outside."""
