"""A small classifier as a feature space for evaluation, for images that Inception's features say
little about.

The Frechet distance in the features of a classifier trained on the data at hand ("Frechet
Classifier Distance") is customary for MNIST-like images. It learns from true labels, so only the
evaluation may use it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from fw.core.diffusion.pixels import to_unit
from fw.core.errors import StageFailed
from fw.core.job import Job
from fw.core.kinds import Encoder
from fw.core.learning.batch_norm import normed_together
from fw.core.learning.loop import Step, descend
from fw.core.learning.optimizers import adam
from fw.core.learning.rows import ALONE, Rows
from fw.core.machine.transfer import sent
from fw.core.types import LARGEST, ImageSet
from fw.plugins.encoders.epochs import too_short
from fw.registry import Neutral


class Classifier(Encoder):
    """Penultimate features of a small CNN trained on the true labels. It scores models and never
    trains them.

    The defaults suit the digits: on 32x32 images of many classes take steps 2000 and width 32. The
    report says how accurate it is on held-out images; scores in the space of a poor classifier say
    little. Its training turns and shifts the images a little and never mirrors them.
    """

    name: ClassVar[str] = "classifier"
    version: ClassVar[int] = 2
    uses_labels: ClassVar[bool] = True

    steps: int = Field(400, ge=1, description="training steps", examples=[8])
    batch: int = Field(128, ge=1, le=1_000_000, description="images per step")
    lr: float = Field(3e-3, gt=0, le=LARGEST, description="peak learning rate of AdamW")
    dims: int = Field(64, ge=2, le=65536, description="number of features")
    width: int = Field(16, ge=1, le=4096, description="channels of the first convolution")
    features: Annotated[Literal["penultimate", "logits"], Neutral("penultimate")] = Field(
        "penultimate", description="the hidden layer, or the class scores made of it"
    )

    @property
    def gives_logits(self) -> bool:
        return self.features == "logits"

    def cautions(self, shape: tuple[int, int, int], images: int | None) -> Iterator[str]:
        yield from too_short(self.name, self.steps, self.batch, images)

    def build(self, shape: tuple[int, int, int], classes: int) -> SmallCNN:
        return SmallCNN(shape, classes, self.width, self.dims, self.gives_logits)

    def fit(self, network: nn.Module, data: ImageSet, job: Job) -> None:
        if data.labels is None:
            raise StageFailed(
                "the encoder 'classifier' needs a dataset with labels: use the space 'pca' instead"
            )
        assert isinstance(network, SmallCNN)
        network.to(job.device).train()
        labels, rows = data.labels, Rows.shared(self.batch, job.team)

        def loss(step: Step) -> Tensor:
            chosen = rows.own(torch.randint(len(data), (self.batch,)))
            logits = network.logits(jitter(sent(data.images[chosen], job.device), rows=rows))
            return rows.part(functional.cross_entropy(logits, sent(labels[chosen], job.device)))

        with normed_together(network, rows.team):
            descend(
                job,
                self.steps,
                loss,
                adam(network.parameters(), self.lr, weight_decay=0.01),
                {"network": network},
                label="classifier",
                rate=lambda number: self.lr * warm_up_then_cosine((number + 1) / self.steps),
                log_every=1,
                split=rows.split,
            )
        network.eval()

    def quality(self, network: nn.Module, held_out: ImageSet) -> dict[str, float]:
        if held_out.labels is None:
            return {}
        assert isinstance(network, SmallCNN)
        device = next(network.parameters()).device
        with torch.no_grad():
            guesses = [
                network.logits(images.to(device)).argmax(1).cpu()
                for images in held_out.images.split(1024)
            ]
        return {"accuracy": float((torch.cat(guesses) == held_out.labels).float().mean())}


class SmallCNN(nn.Module):
    """Halves the image until about 4x4, then one hidden layer: the features.

    Batch norm, in eval mode: a norm over each image (group, layer, instance) would hide its
    contrast, and made the Frechet distance of blurred and of blended digits three times less
    sensitive.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        width: int,
        dims: int,
        gives_logits: bool = False,
    ):
        super().__init__()
        self.gives_logits = gives_logits
        halvings = max(1, round(math.log2(min(shape[1:]) / 4)))
        stem_stride = 2 if halvings > 3 else 1  # images above 32x32 are halved at once
        widths = [min(width * 2**i, 8 * width) for i in range(halvings - stem_stride + 2)]
        self.trunk = nn.Sequential(
            convolution(shape[0], widths[0], stride=stem_stride),
            *(convolution(narrow, wide, stride=2) for narrow, wide in itertools.pairwise(widths)),
            convolution(widths[-1], widths[-1], stride=1),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
        )
        self.hidden = nn.Linear(widths[-1] * 16, dims)
        self.head = nn.Linear(dims, classes)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (or float in 0..255) images (B, C, H, W) -> features (B, dims), or class scores."""
        return self.logits(images) if self.gives_logits else self.penultimate(images)

    def penultimate(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) -> features (B, dims)."""
        x = self.trunk(to_unit(images))  # (B, 16 * widest)
        return functional.relu(self.hidden(x))  # (B, dims)

    def logits(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) -> class scores (B, classes)."""
        return self.head(self.penultimate(images))


def convolution(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def jitter(images: Tensor, degrees: float = 10, shift: float = 0.1, rows: Rows = ALONE) -> Tensor:
    """Rotate and shift each image a little; `shift` is a share of half the image. No flips: they
    make other digits."""
    count, device = rows.everywhere(len(images)), images.device
    angle = (2 * rows.own(torch.rand(count, device=device)) - 1) * math.radians(degrees)
    offset = (2 * rows.own(torch.rand(count, 2, device=device)) - 1) * shift
    cosine, sine = angle.cos(), angle.sin()
    turn = torch.stack(
        [torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1
    )  # (B, 2, 2)
    grid = functional.affine_grid(
        torch.cat([turn, offset[:, :, None]], 2), list(images.shape), align_corners=False
    )
    images = images.to(grid.dtype)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def warm_up_then_cosine(progress: float, warm_up: float = 0.1) -> float:
    """The learning rate's share of its peak, for progress in (0, 1]."""
    return min(progress / warm_up, 0.5 * (1 + math.cos(math.pi * progress)))
