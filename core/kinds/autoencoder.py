"""Images to latents and back: what the model is trained and sampled in (arXiv 2112.10752)."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from fw.registry import Component


class Code(NamedTuple):
    """Latents of images, float32 (B, C, h, w). Training takes `mean`, or if there is a `std` of the same shape, a fresh
    draw of N(mean, std) at each step."""

    mean: Tensor
    std: Tensor | None = None


class Autoencoder(Component):
    """Images to latents and back (arXiv 2112.10752): the model is trained and sampled in the latents.

    Everything else still sees pixels: encoders, annotators and metrics. The training split is encoded once, and
    samples are decoded. An autoencoder is not trained by fw.
    """

    kind: ClassVar[str] = "autoencoder"

    @abstractmethod
    def latent_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, h, w) of the latents of images (C, H, W), or ValueError if it cannot take them; asked when a recipe is
        validated, so it is known without the files."""

    @abstractmethod
    def build(self, shape: tuple[int, int, int]) -> nn.Module:
        """The trained network for images (C, H, W). fw puts it into eval mode and asks for no gradients."""

    @abstractmethod
    def encode(self, network: nn.Module, images: Tensor) -> Code:
        """uint8 images (B, C, H, W) to latents of about unit variance."""

    @abstractmethod
    def decode(self, network: nn.Module, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) to float32 images (B, C, H, W) in -1..1; what lies outside is clamped."""
