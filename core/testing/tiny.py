"""Small stand-ins for the rest of an arm: images, features, a process and a denoiser that has
every capability."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from fw.core.diffusion.conditioning import ConditionEmbedding
from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.pixels import per_image
from fw.core.errors import StageFailed
from fw.core.job import Job
from fw.core.kinds import Attend, Backbone, Coefficients, Dataset, Move, Process, scaled_dot_product
from fw.core.randomness import forked, generator
from fw.core.types import ConditionSpec, ImageSet, Split

SHAPE = (1, 8, 8)
CLASSES = 3


def devices() -> list[str]:
    """The devices to check on: the CPU, and a GPU where there is one."""
    return ["cpu", *gpus()]


def gpus() -> list[str]:
    """The GPU to check on as well, where there is one."""
    return ["cuda"] if torch.cuda.is_available() else []


@contextlib.contextmanager
def job(seed: int = 0, device: str = "cpu") -> Iterator[Job]:
    """A job with a folder of its own, which is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        yield Job(Path(folder), seed=seed, device=torch.device(device))


@contextlib.contextmanager
def as_in_a_run() -> Iterator[None]:
    """Make what a run refuses (core/kinds/boundaries.py) a violation of the contract, in the
    same words."""
    try:
        yield
    except StageFailed as error:
        raise AssertionError(str(error)) from None


def images(count: int, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> ImageSet:
    """Noisy stripes in three directions, uint8 (N, C, H, W), with the direction as the label."""
    draw = generator(seed, "images")
    labels = torch.arange(count) % CLASSES
    channels, height, width = shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    stripes = torch.stack([rows, columns, rows + columns])[labels] % 4 < 2  # (N, H, W)
    noise = torch.randint(0, 60, (count, channels, height, width), generator=draw)
    return ImageSet((150 * stripes[:, None] + noise).to(torch.uint8), labels, CLASSES)


def features(count: int, size: int = 6, seed: int = 0) -> Tensor:
    """Three well separated clusters of features, float32 (N, D)."""
    draw = generator(seed, "features")
    centres = 4 * torch.randn(CLASSES, size, generator=draw)
    return centres[torch.arange(count) % CLASSES] + torch.randn(count, size, generator=draw)


class TinyDataset(Dataset):
    """Stripes in three directions, with labels."""

    name: ClassVar[str] = "tiny"

    count: int = 60

    @property
    def shape(self) -> tuple[int, int, int]:
        return SHAPE

    @property
    def classes(self) -> int:
        return CLASSES

    def load(self, split: Split) -> ImageSet:
        return images(self.count, seed=len(split))


class TinyProcess(Process):
    """EDM's preconditioning (arXiv 2206.00364, table 1) at noise levels 0.02 to 10."""

    name: ClassVar[str] = "tiny"

    @property
    def sigma_range(self) -> tuple[float, float]:
        return 0.02, 10.0

    def coefficients(self, sigma: Tensor) -> Coefficients:
        root = (sigma**2 + 0.25).sqrt()
        return Coefficients(0.25 / root**2, sigma * 0.5 / root, 1 / root, sigma.log() / 4)

    def sigmas(self, uniform: Tensor) -> Tensor:
        return 0.02 * 500**uniform


class TinyNetwork(nn.Module):
    """A convolution, one attention layer called `middle`, conditions, and a classifying head."""

    def __init__(
        self, shape: tuple[int, int, int], condition: ConditionSpec | None, width: int = 8
    ):
        super().__init__()
        self.read = nn.Conv2d(shape[0], width, 3, padding=1)
        self.level = nn.Linear(1, width)
        self.embed = None if condition is None else ConditionEmbedding(condition, width)
        self.mix = nn.Linear(width, 3 * width)
        self.write = nn.Conv2d(width, shape[0], 3, padding=1)
        self.head = nn.Linear(width, CLASSES if condition is None else condition.size)

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        condition: Tensor | None = None,
        dropped: Tensor | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        embedded = self.level(noise[:, None])  # (B, width)
        if self.embed is not None:
            embedded = embedded + 30 * self.embed(condition, dropped, len(x))
        hidden = torch.tanh(self.read(x) + per_channel(embedded))  # (B, width, H, W)
        query, key, value = (  # (B, 2, H * W, width / 2)
            part.unflatten(2, (2, -1)).transpose(1, 2)
            for part in self.mix(hidden.flatten(2).transpose(1, 2)).chunk(3, 2)
        )
        mixed = (attend or scaled_dot_product)(query, key, value, "middle")
        mixed = (
            mixed.transpose(1, 2).flatten(2).transpose(1, 2).unflatten(2, x.shape[2:])
        )  # (B, width, H, W)
        return self.write(hidden + mixed)

    def logits(self, x: Tensor, noise: Tensor) -> Tensor:
        return self.recognised([self.trunk(x, noise)])

    def steered(self, x: Tensor, noise: Tensor, move: Move) -> Tensor:
        [hidden] = move([self.trunk(x, noise)], self.recognised)
        return self.write(hidden)

    def trunk(self, x: Tensor, noise: Tensor) -> Tensor:
        return torch.tanh(self.read(x) + per_channel(self.level(noise[:, None])))

    def recognised(self, hidden: Sequence[Tensor]) -> Tensor:
        return self.head(hidden[0].mean(dim=(2, 3)))


class TinyBackbone(Backbone):
    """The tiny network, as a recipe would name it."""

    name: ClassVar[str] = "tiny"

    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        return TinyNetwork(shape, condition)


def per_channel(values: Tensor) -> Tensor:
    return values[:, :, None, None]


def denoiser(shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> NetworkDenoiser:
    """An untrained denoiser with three conditions, a null condition, attention and logits."""
    with forked(), torch.inference_mode(False):
        torch.manual_seed(seed)
        network = TinyNetwork(shape, ConditionSpec("class", CLASSES))
    return NetworkDenoiser(network.eval(), TinyProcess())


def noisy(count: int, sigma: float, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Tensor:
    """Noisy images x0 + sigma * n in -1..1 plus noise, (B, C, H, W)."""
    clean = images(count, shape, seed).images.float() / 127.5 - 1
    return clean + per_image(torch.full((count,), sigma)) * torch.randn(
        clean.shape, generator=generator(seed, "noise")
    )
