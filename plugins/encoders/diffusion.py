"""A denoiser as an encoder: choose a noise level and blocks, read their activations, pool (arXiv
2407.00783).

The default choice is the literature's: the decoder's second-lowest resolution and little noise
(DDAE, arXiv 2303.09769; DIFT, arXiv 2306.03881).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.generate import batch_size
from fw.core.diffusion.pixels import to_unit
from fw.core.diffusion.taps import usual_block
from fw.core.features.activations import Pool, noise_of, read
from fw.core.job import Job
from fw.core.kinds.boundaries import checked_network
from fw.core.types import ImageSet
from fw.plugins.encoders.of_denoiser import Blocks, OfDenoiser, Sigmas

MOST_IMAGES = 10_000
"""Training images over which features are standardised."""


class DenoiserEncoder(OfDenoiser):
    """Trains a denoiser on the training images, without labels and conditions, or loads one, and
    reads it."""

    draws: int = Field(
        4, ge=1, le=10_000, description="draws of noise over which features are averaged"
    )
    pool: Pool = Field(
        "mean", description="mean over all positions, or grid: over each quarter of the image"
    )

    @model_validator(mode="after")
    def _once(self) -> Self:
        for name in ("blocks", "sigma"):
            listed = getattr(self, name) or ()
            if len(set(listed)) < len(listed):
                raise ValueError(f"{name} lists one twice: {list(listed)}")
        return self

    @abstractmethod
    def reader(self, network: nn.Module, shape: tuple[int, int, int], classes: int) -> Reader:
        """The module that reads the denoiser's features."""

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        network = checked_network(self.model, self.model.build(shape, None))
        self.check_blocks(network)
        return self.reader(network, shape, classes)

    def fit(self, network: nn.Module, data: ImageSet, job: Job) -> None:
        assert isinstance(network, Reader)
        network.to(job.device)
        network.network.load_state_dict(self.learned(network.network, data, job).state_dict())


class Diffusion(DenoiserEncoder):
    """The activations of a denoiser's blocks on images in a little noise; the denoiser is trained
    here, without labels.

    Every feature has mean 0 and variance 1 over the training images, so that no block or channel
    drowns the others.
    """

    name: ClassVar[str] = "diffusion"

    blocks: Blocks = Field(
        None,
        min_length=1,
        description=(
            "blocks that are put side by side; null is the decoder's at the second-lowest "
            "resolution"
        ),
    )
    sigma: Sigmas = Field(
        (0.05,),
        min_length=1,
        description="noise levels, likewise; sigma / alpha of other notations",
    )

    def reader(self, network: nn.Module, shape: tuple[int, int, int], classes: int) -> Reader:
        return Standardised(self, network, self.blocks or (usual_block(network),), shape)

    def fit(self, network: nn.Module, data: ImageSet, job: Job) -> None:
        super().fit(network, data, job)
        assert isinstance(network, Standardised)
        rows = torch.randperm(len(data), generator=job.generator("standardise"))[:MOST_IMAGES]
        batches = data.images[rows].split(batch_size(data.shape, job.device))
        network.eval()
        features = [
            network.side_by_side(batch.to(job.device)).cpu() for batch in job.track(batches, "read")
        ]
        network.standardise(torch.cat(features))


class Reader(nn.Module):
    """Reads the features of a denoiser's blocks."""

    def __init__(self, settings: DenoiserEncoder, network: nn.Module, blocks: Sequence[str]):
        super().__init__()
        self.settings = settings
        self.network = network
        self.blocks = tuple(blocks)

    @property
    def cells(self) -> list[tuple[float, str]]:
        """The noise levels and blocks that are read, in the order of the features."""
        return [(sigma, block) for sigma in self.settings.sigma for block in self.blocks]

    def side_by_side(self, images: Tensor) -> Tensor:
        """uint8 images (B, C, H, W) -> the features of all cells (B, D)"""
        return torch.cat(list(self.read(images, self.cells)), dim=1)

    def read(self, images: Tensor, cells: Sequence[tuple[float, str]]) -> Iterator[Tensor]:
        """The features (B, D) of each cell; all blocks of a noise level are read in one pass."""
        model = NetworkDenoiser(
            self.network, self.settings.process, bf16=self.settings.precision == "bf16"
        )
        x0, noise = to_unit(images), noise_of(images, self.settings.draws, images.shape[1:])
        for sigma in dict.fromkeys(sigma for sigma, _ in cells):
            blocks = [block for level, block in cells if level == sigma]
            features = read(model, x0, noise, sigma, blocks, self.settings.pool)
            yield from (features[block] for block in blocks)


class Standardised(Reader):
    """Reads all cells, at mean 0 and variance 1."""

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        settings: DenoiserEncoder,
        network: nn.Module,
        blocks: Sequence[str],
        shape: tuple[int, int, int],
    ):
        super().__init__(settings, network, blocks)
        size = self.eval().side_by_side(torch.zeros(1, *shape, dtype=torch.uint8)).shape[1]
        self.train()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def forward(self, images: Tensor) -> Tensor:
        """uint8 images (B, C, H, W) -> features (B, D)"""
        return (self.side_by_side(images) - self.mean) * self.scale

    def standardise(self, features: Tensor) -> None:
        """Take mean and variance from features (N, D); constant features become 0."""
        spread = features.std(dim=0, correction=0)
        self.mean.copy_(features.mean(dim=0))
        self.scale.copy_(torch.where(spread > 1e-6, 1 / spread, 0.0))
