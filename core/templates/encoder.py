"""A linear autoencoder, trained on the images."""

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from fw.core.job import Job
from fw.core.kinds import Encoder
from fw.core.learning.loop import Step, descend
from fw.core.types import ImageSet
from fw.registry import hookimpl

FW_API = 2


class Example(Encoder):
    """The code of a linear autoencoder: it learns the space of the first principal components."""

    name: ClassVar[str] = "example"

    dims: int = Field(8, ge=1, le=4096, description="size of the code")
    steps: int = Field(200, ge=1, description="training steps", examples=[8])
    batch: int = Field(64, ge=1, description="images per step")

    def build(self, shape: tuple[int, int, int], classes: int) -> "Codec":
        return Codec(math.prod(shape), self.dims)

    def fit(self, network: nn.Module, data: ImageSet, job: Job) -> None:
        assert isinstance(network, Codec)

        def loss(step: Step) -> Tensor:
            rows = torch.randint(len(data), (self.batch,))  # fw seeds the generator at each step
            return network.error(data.images[rows].to(job.device))

        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        descend(job, self.steps, loss, optimizer, {"network": network}, log_every=1)

    @torch.no_grad()
    def quality(self, network: nn.Module, held_out: ImageSet) -> dict[str, float]:
        assert isinstance(network, Codec)
        return {"error": network.error(held_out.images.to(network.encode.weight.device)).item()}


class Codec(nn.Module):
    """All that it learns is in its state dict, because that is what fw stores."""

    def __init__(self, pixels: int, dims: int):
        super().__init__()
        self.encode = nn.Linear(pixels, dims)
        self.decode = nn.Linear(dims, pixels)

    def forward(self, images: Tensor) -> Tensor:
        return self.encode(images.flatten(1) / 255)  # uint8 (B, C, H, W) -> (B, dims)

    def error(self, images: Tensor) -> Tensor:
        return mse_loss(self.decode(self(images)), images.flatten(1) / 255)


@hookimpl
def fw_components() -> list[type[Encoder]]:
    return [Example]
