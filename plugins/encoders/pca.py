"""Principal components of pixels as a feature space: no labels, no training, hardly any choices."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fw.core.errors import RecipeError
from fw.core.job import Job
from fw.core.kinds import Encoder
from fw.core.types import ImageSet

MOST_IMAGES = (
    10_000  # bounds the memory of the fit: 10 000 RGB images of 64x64 are 0.5 GB as float32
)


class PCA(Encoder):
    """First principal components of the training pixels (in 0..1): sees noise and blur better
    than content."""

    name: ClassVar[str] = "pca"

    dims: int = Field(
        16, ge=2, description="number of components; 16 hold 85 % of the variance of 8x8 digits"
    )

    @property
    def least_images(self) -> int:
        return self.dims

    def check(self, shape: tuple[int, int, int]) -> None:
        if self.dims > math.prod(shape):
            raise ValueError(
                f"encoder pca: dims is {self.dims}, but an image has {math.prod(shape)} values"
            )

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        self.check(shape)
        return Projection(math.prod(shape), self.dims)

    def fit(self, network: nn.Module, data: ImageSet, job: Job) -> None:
        from sklearn import decomposition

        if self.dims > len(data):
            raise RecipeError(
                [f"encoder pca: dims is {self.dims}, but there are {len(data)} training images"]
            )
        rows = torch.randperm(len(data), generator=job.generator("pca"))[:MOST_IMAGES]
        pixels = as_pixels(data.images[rows])  # (N, P)
        fitted = decomposition.PCA(self.dims, random_state=job.seed % 2**32).fit(pixels.numpy())
        network.load_state_dict(
            {
                "mean": torch.from_numpy(fitted.mean_).float(),
                "axes": torch.from_numpy(fitted.components_).float(),
            }
        )
        network.to(job.device)


class Projection(nn.Module):
    """(pixels - mean) @ axes^T"""

    def __init__(self, pixels: int, dims: int):
        super().__init__()
        self.mean: Tensor
        self.axes: Tensor
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("axes", torch.zeros(dims, pixels))

    def forward(self, images: Tensor) -> Tensor:
        """uint8 images (B, C, H, W) -> features (B, dims)."""
        return (as_pixels(images) - self.mean) @ self.axes.T


def as_pixels(images: Tensor) -> Tensor:
    """uint8 images (B, C, H, W) -> float32 (B, C*H*W) in 0..1."""
    return images.flatten(1).float() / 255
