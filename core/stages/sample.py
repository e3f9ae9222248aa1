"""Draw the images of one arm; image i starts from the same noise in every arm."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fw.core.diffusion.compiled import compile_network, worth_compiling
from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.generate import Drawing, batch_size, generate
from fw.core.diffusion.latents import Codec
from fw.core.diffusion.pixels import to_uint8
from fw.core.errors import FwError
from fw.core.files.layout import MODEL
from fw.core.files.stacked import stacked
from fw.core.files.weights import noted
from fw.core.job import Job
from fw.core.kinds import Autoencoder, Backbone, Process, Sampler, Steering
from fw.core.machine.precision import Precision, shortened
from fw.core.settings import Samples
from fw.core.stages.average import AverageWeights
from fw.core.stages.base import Products, Stage
from fw.core.stages.conditions import load_annotation
from fw.core.stages.data import Data, ImageStage
from fw.core.stages.grid import save_grid
from fw.core.stages.keys import part, read, unkeyed
from fw.core.stages.prior import FitPrior
from fw.core.stages.train import TrainDenoiser
from fw.core.types import Annotation, ImageSet, Split

INFO = "info.json"
GRID = "grid.png"

SHARD = 1000
"""Images in one file of samples: an interrupted sampling loses no more than these."""


@dataclass(frozen=True, eq=False)
class Sample(ImageStage):
    """Makes the samples (uint8), the number of network evaluations for each, and a grid of some."""

    kind: ClassVar[str] = "sample"
    version: ClassVar[int] = 2
    lighter: ClassVar[str] = "sample fewer images at once with `--batch`"
    files: ClassVar[tuple[str, ...]] = ("samples-*-*.safetensors", "info.json", "grid.png")
    cost: ClassVar[int] = 4
    teams: ClassVar[bool] = True

    dataset: Data
    model: Backbone
    process: Process
    sampler: Sampler
    guidance: tuple[Steering, ...]
    samples: Samples
    precision: Precision
    train: TrainDenoiser = read()
    latents: Autoencoder | None = part(None, absent=None)
    annotate: Stage | None = read(None)
    prior: FitPrior | None = read(None)
    siblings: tuple[TrainDenoiser | None, ...] = read((), "sibling")
    """For each entry of `guidance` the training of the network that it asks for, or None."""
    sibling_models: tuple[Backbone | None, ...] = part((), name="siblings", absent=())
    """The models of the siblings; they are part of the keys, as they were before stages had
    fields."""
    average: AverageWeights | None = read(None)
    """What makes the weights, where the length of their average is chosen after training."""
    sibling_averages: tuple[AverageWeights | None, ...] = read((), "sibling_average")
    """The same for each sibling."""
    step: int | None = part(None, absent=None)
    """The snapshot of the training that is sampled; None is the end. Siblings are always those of
    the end."""
    arm: str = unkeyed("")

    @property
    def label(self) -> str:
        return self.arm

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.dataset.shape

    @property
    def classes(self) -> int:
        return 0

    def least_memory(self, batch: int | None) -> int:
        """A batch and its noise."""
        size = batch or batch_size(self.train.shape, torch.device("cpu"))
        return 2 * size * math.prod(self.train.shape) * torch.float32.itemsize

    def run(self, job: Job, products: Products) -> None:
        annotation, note = self.annotation(products), noted(self.supervision)
        networks = self.networks(annotation, products, job.device)
        if worth_compiling(self.train.train.compile, job.device, self.calls(job.device)):
            for network in networks.all:
                compile_network(network.network, job.warn)
        to_images = self.decoder(job.device)
        for seed, images in job.track(job.team.share(list(shards(self.samples))), "sample"):
            name = shard_name(seed, images)
            if job.kept(name) is None or (job.team.leads and job.kept(INFO) is None):
                before = networks.evaluations
                batches = self.drawn(
                    networks, annotation, seed, images, to_images, job.device, job.batch
                )
                nfe = {"nfe": (networks.evaluations - before) // len(batches)}
                if job.team.leads:
                    text = json.dumps(nfe, indent=1)
                    job.keep(INFO, methodcaller("write_text", text, encoding="utf-8"))
                job.keep(name, partial(save_file, {"images": torch.cat(batches)}, metadata=note))
        job.team.wait()
        if not job.team.leads:
            return
        first_seed, first_images = next(shards(self.samples))
        first = load_shard(job.folder, first_seed, first_images)
        save_grid(first[:64], job.folder / GRID)

    def calls(self, device: torch.device) -> int:
        """How often its network is called, without guidance."""
        batches = math.ceil(self.samples.count / batch_size(self.train.shape, device))
        return self.samples.seeds * batches * self.sampler.nfe

    @property
    def drawing(self) -> Drawing:
        return Drawing(self.train.shape, self.sampler, self.guidance, self.seed or 0)

    def drawn(
        self,
        networks: Networks,
        annotation: Annotation | None,
        seed: int,
        images: range,
        to_images: Callable[[Tensor], Tensor],
        device: torch.device,
        batch: int | None,
    ) -> list[Tensor]:
        """These `images` of a sampling seed, in the recipe's precision, batch by batch; see
        `generate`."""
        batches = generate(
            networks.own,
            networks.siblings,
            self.drawing,
            annotation,
            seed,
            images,
            to_images,
            batch,
        )
        with shortened(self.precision, device):
            return list(batches)

    def annotation(self, products: Products) -> Annotation | None:
        """The conditions that images are drawn for."""
        return load_annotation(self.annotate, self.prior, products)

    def networks(
        self, annotation: Annotation | None, products: Products, device: torch.device
    ) -> Networks:
        """The trained denoisers."""

        def loaded(
            stage: TrainDenoiser, average: AverageWeights | None, step: int | None = None
        ) -> NetworkDenoiser:
            folder, file = products(stage), stage.weights_after(step)
            if average is not None:
                folder, file = products(average), MODEL
            return stage.denoiser(folder, annotation, device, self.precision, file)

        siblings = [
            None if stage is None else loaded(stage, average)
            for stage, average in itertools.zip_longest(self.siblings, self.sibling_averages)
        ]
        return Networks(loaded(self.train, self.average, self.step), siblings)

    @property
    def weights(self) -> Stage:
        """The stage that has made the weights of its own network, as `model.safetensors` if they
        are of the end."""
        return self.average or self.train

    def decoder(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        """What makes uint8 images of samples: the autoencoder, or rounding where there is none."""
        return to_uint8 if self.latents is None else Codec(self.latents, self.shape, device).decode

    def load(self, folder: Path) -> list[Tensor]:
        """The samples of each sampling seed in a finished product, uint8 (count, C, H, W)."""
        return load_samples(folder, self.samples)

    def images(self, split: Split, products: Products) -> ImageSet:
        """All samples, seed after seed, as training images without labels; there are no others."""
        if split != "train":
            raise FwError(f"{self.title}: samples have no {split} split")
        folder = products(self)
        files = (load_shard(folder, seed, few) for seed, few in shards(self.samples))
        return ImageSet(stacked(files, folder.parent))


@dataclass(frozen=True)
class Networks:
    """An arm's denoiser, and for each entry of its guidance the denoiser that it asks for, or
    None."""

    own: NetworkDenoiser
    siblings: list[NetworkDenoiser | None]

    @property
    def all(self) -> list[NetworkDenoiser]:
        return [network for network in (self.own, *self.siblings) if network is not None]

    @property
    def evaluations(self) -> int:
        return sum(network.evaluations for network in self.all)


def shards(samples: Samples) -> Iterator[tuple[int, range]]:
    """The sampling seed and the images of each file; the same on every device, so any device can
    continue."""
    for seed in range(samples.seeds):
        for start in range(0, samples.count, SHARD):
            yield seed, range(start, min(start + SHARD, samples.count))


def shard_name(seed: int, images: range) -> str:
    return f"samples-{seed:03d}-{images.start:07d}.safetensors"


def load_shard(folder: Path, seed: int, images: range) -> Tensor:
    """uint8 (count, C, H, W)."""
    return load_file(folder / shard_name(seed, images))["images"]


def load_samples(folder: Path, samples: Samples) -> list[Tensor]:
    """The samples of each sampling seed, uint8 (count, C, H, W)."""
    by_seed: list[list[Tensor]] = [[] for _ in range(samples.seeds)]
    for seed, images in shards(samples):
        by_seed[seed].append(load_shard(folder, seed, images))
    return [torch.cat(files) for files in by_seed]
