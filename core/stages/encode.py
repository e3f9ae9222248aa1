"""Fit an encoder and take its features: what annotators group and what metrics compare."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fw.core.diffusion.generate import reading_size
from fw.core.files.durable import write_json
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


@dataclass(frozen=True, eq=False)
class Encode(Stage):
    """Makes the features (N, D) of both splits, the fitted network, its scores, and a log where
    it is trained."""

    kind: ClassVar[str] = "encode"
    version: ClassVar[int] = 2
    files: ClassVar[tuple[str, ...]] = (
        "features.safetensors",
        "encoder.safetensors",
        "quality.json",
        "log.jsonl",
    )
    cost: ClassVar[int] = 4

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
        network.eval()
        features = {
            "train": self.features(network, train.images, job),
            "test": self.features(network, test.images, job),
        }
        save_file(features, job.folder / FEATURES)
        save_file(state_of(network), job.folder / NETWORK, noted(self.supervision))
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

    @torch.inference_mode()
    def features(self, network: nn.Module, images: Tensor, job: Job) -> Tensor:
        """uint8 images (N, C, H, W) to float32 features (N, D) on the CPU."""
        batches = images.split(reading_size((*images.shape[1:],), job.device))
        made = (
            formed_features(self.encoder, self.read(network, sent(batch, job.device)), len(batch))
            for batch in job.track(batches, "encode")
        )
        features = [finite_features(self.encoder, each) for each in collected(made)]
        return torch.cat(features).contiguous()

    def read(self, network: nn.Module, images: Tensor) -> Tensor:
        """uint8 images (B, C, H, W) to what the network makes of them (B, D), in the encoder's
        precision."""
        precision, device = self.encoder.computes_in, images.device
        with shortened(precision, device), autocast(precision, device):
            features = network(images)
        return features.float() if features.dtype == torch.bfloat16 else features


def load_features(folder: Path) -> dict[str, Tensor]:
    """The features (N, D) of a finished product, by split."""
    return load_file(folder / FEATURES)
