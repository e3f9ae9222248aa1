"""Fit an encoder and take its features: what annotators group and what metrics compare."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fw.core.diffusion.generate import reading_size
from fw.core.files.durable import write_json
from fw.core.files.stacked import HELD, join
from fw.core.files.weights import noted
from fw.core.job import Job
from fw.core.kinds import Encoder
from fw.core.kinds.boundaries import finite_features, formed_features
from fw.core.learning.state import state_of
from fw.core.machine.precision import autocast, shortened
from fw.core.machine.transfer import collected, sent
from fw.core.randomness import seeded
from fw.core.stages.base import Products, Stage
from fw.core.stages.data import Data, load_split
from fw.registry import NOTHING, Supervision, labels_of

FEATURES = "features.safetensors"
NETWORK = "encoder.safetensors"
PIECE = "piece-"
"""How the names of files begin that the features are put together of."""

IN_A_FILE = 4000


@dataclass(frozen=True, eq=False)
class Encode(Stage):
    """Makes the features (N, D) of both splits, the fitted network, its scores, and a log where
    it is trained."""

    kind: ClassVar[str] = "encode"
    version: ClassVar[int] = 2
    lighter: ClassVar[str] = (
        "take a smaller `size` of the data set, or an encoder with a smaller `batch` or "
        "fewer features"
    )
    files: ClassVar[tuple[str, ...]] = (
        "features.safetensors",
        "encoder.safetensors",
        "quality.json",
        "log.jsonl",
    )
    cost: ClassVar[int] = 4
    teams: ClassVar[bool] = True

    dataset: Data
    encoder: Encoder

    @property
    def label(self) -> str:
        return self.encoder.in_short

    @property
    def labels(self) -> Supervision:
        return labels_of(self.dataset.name) if self.encoder.uses_labels else NOTHING

    def run(self, job: Job, products: Products) -> None:
        train, test = (load_split(self.dataset, split, products) for split in ("train", "test"))
        network = self.new_network(job)
        with shortened(self.encoder.computes_in, job.device):
            self.encoder.fit(
                network, train if self.encoder.uses_labels else train.without_labels(), job
            )
        if job.team.leads and job.kept(NETWORK) is None:
            state = state_of(network)
            job.keep(NETWORK, lambda path: save_file(state, path, noted(self.supervision)))
        job.team.wait()
        # All features are of one network: those of other members, and of an earlier try, too.
        network.load_state_dict(load_file(job.folder / NETWORK))
        network.eval()
        if job.kept(FEATURES) is None:
            pieces = {
                "train": self.store_features(network, "train", train.images, job),
                "test": self.store_features(network, "test", test.images, job),
            }
            job.team.wait()
            if job.team.leads:
                job.keep(FEATURES, partial(join, pieces))
        if job.team.leads:
            for piece in job.folder.glob(f"{PIECE}*"):
                piece.unlink()
            write_json(job.folder / "quality.json", self.encoder.quality(network, test))

    def new_network(self, job: Job) -> nn.Module:
        """An unfitted network whose initial weights depend only on the job's seed."""
        with seeded(job.seed, "encode"):
            network = self.encoder.build(
                self.dataset.shape, self.dataset.classes if self.encoder.uses_labels else 0
            )
        return network.to(job.device)

    def network(self, folder: Path, job: Job) -> nn.Module:
        """The fitted network of a finished product."""
        network = self.new_network(job)
        network.load_state_dict(load_file(folder / NETWORK))
        return network.eval()

    def store_features(
        self, network: nn.Module, split: str, images: Tensor, job: Job
    ) -> list[Path]:
        """Make the features of a split's uint8 images (N, C, H, W) in files of some images each:
        an interrupted encoding loses no more than one, and a team shares them."""
        size = reading_size((*images.shape[1:],), job.device)
        files = {
            few: f"{PIECE}{split}-{few.start:07d}-{few.stop:07d}.safetensors"
            for few in in_files(images, size)
        }
        batches = [
            (few, range(start, min(start + size, few.stop)))
            for few in job.team.share(list(files))
            for start in range(few.start, few.stop, size)
        ]
        made: list[Tensor] = []
        for few, rows in job.track(batches, "encode"):
            if rows.start == few.start:
                done = job.kept(files[few]) is not None
            if done:
                continue
            made.append(self.read_few(network, images[rows.start : rows.stop], job.device))
            if rows.stop == few.stop:
                features = torch.cat(list(collected(made))).contiguous()
                made = []
                features = finite_features(self.encoder, features)
                job.keep(files[few], partial(save_file, {"features": features}))
        return [job.folder / name for name in files.values()]

    @torch.inference_mode()
    def features(self, network: nn.Module, images: Tensor, job: Job) -> Tensor:
        """uint8 images (N, C, H, W) to float32 features (N, D) on the CPU."""
        batches = images.split(reading_size((*images.shape[1:],), job.device))
        made = (self.read_few(network, batch, job.device) for batch in job.track(batches, "encode"))
        features = [finite_features(self.encoder, each) for each in collected(made)]
        return torch.cat(features).contiguous()

    @torch.inference_mode()
    def read_few(self, network: nn.Module, images: Tensor, device: torch.device) -> Tensor:
        """uint8 images (B, C, H, W) to features (B, D) on the device, float32."""
        return formed_features(self.encoder, self.read(network, sent(images, device)), len(images))

    def read(self, network: nn.Module, images: Tensor) -> Tensor:
        """uint8 images (B, C, H, W) to what the network makes of them (B, D), in the encoder's
        precision."""
        precision, device = self.encoder.computes_in, images.device
        with shortened(precision, device), autocast(precision, device):
            features = network(images)
        shortened_too = isinstance(features, Tensor) and features.dtype == torch.bfloat16
        return features.float() if shortened_too else features


def in_files(images: Tensor, size: int) -> Iterator[range]:
    """The images (N, C, H, W) of each file of features, in whole batches of `size`: some thousand,
    or as many as features as large as these images fit into memory."""
    fitting = min(IN_A_FILE, HELD // (4 * images[0].numel()))
    step = max(1, fitting // size) * size
    for start in range(0, len(images), step):
        yield range(start, min(start + step, len(images)))


def load_features(folder: Path) -> dict[str, Tensor]:
    """The features (N, D) of a finished product, by split; mapped, not read."""
    return load_file(folder / FEATURES)
