"""Scores fabricated samples, one file of them linked many times, and prints what memory that took.

    python tests/evaluated.py FOLDER SIDE SHARDS SEEDS TRAIN

One line of JSON: the scores by metric, the largest memory before and in all (MB), CPU seconds.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fw.core.job import Job
from fw.core.kinds import Dataset, Encoder
from fw.core.settings import Samples, Train
from fw.core.stages.base import Stage
from fw.core.stages.encode import FEATURES, NETWORK, Encode
from fw.core.stages.evaluate import Evaluate
from fw.core.stages.features import SampleFeatures
from fw.core.stages.reference import MeasureReference
from fw.core.stages.sample import SHARD, Sample, shard_name, shards
from fw.core.stages.train import TrainDenoiser
from fw.core.types import ImageSet, Split
from fw.plugins.backbones.unet import UNet
from fw.plugins.metrics.fd import FD
from fw.plugins.metrics.kid import KID
from fw.plugins.metrics.memorisation import Memorisation
from fw.plugins.metrics.prdc import PRDC
from fw.plugins.processes.ddpm import DDPM
from fw.plugins.samplers.ddim import DDIM

METRICS = (FD, KID, PRDC, Memorisation)
CELLS = 4
"""Rows and columns of means that are the features."""


class Nothing(Dataset):
    """A shape without images."""

    name: ClassVar[str] = "nothing"
    side: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3, self.side, self.side

    @property
    def classes(self) -> int:
        return 0

    def load(self, split: Split) -> ImageSet:
        raise NotImplementedError


class Means(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("one", torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(images.float(), CELLS).flatten(1)


class Cheap(Encoder):
    """Means over tiles."""

    name: ClassVar[str] = "cheap"

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        return Means()

    def fit(self, network: nn.Module, data: ImageSet, job: Job) -> None:
        raise NotImplementedError


def evaluate(folder: Path, side: int, count: int, seeds: int, train: int) -> dict[str, Any]:
    dataset, space, samples = Nothing(side=side), Cheap(), Samples(count=count, seeds=seeds)
    encode = Encode(dataset, space, seed=0)
    model = TrainDenoiser(dataset, UNet(), DDPM(), Train(), seed=0)
    sample = Sample(dataset, UNet(), DDPM(), DDIM(), (), samples, "fp32", model, seed=0)
    features = SampleFeatures(dataset, space, sample, encode)
    places: dict[str, Path] = {}

    def place(stage: Stage) -> Path:
        places[stage.id] = folder / stage.id
        places[stage.id].mkdir(parents=True)
        return places[stage.id]

    def products(stage: Stage) -> Path:
        return places[stage.id]

    draw = torch.Generator().manual_seed(0)
    there = place(encode)
    real = {"train": train, "test": max(100, train // 10)}
    dims = 3 * CELLS**2
    save_file(
        {name: 127 + 5 * torch.randn(n, dims, generator=draw) for name, n in real.items()},
        there / FEATURES,
    )
    save_file({"one": torch.ones(1)}, there / NETWORK)
    there, first = place(sample), None
    for seed, images in shards(samples):
        file = there / shard_name(seed, images)
        if first is None:
            first = file
            shape = (SHARD, 3, side, side)
            noise = torch.randint(256, shape, generator=draw, dtype=torch.uint8)
            save_file({"images": noise}, file)
            del noise
        else:
            os.link(first, file)
    before = memory()
    features.run(Job(place(features)), products)
    scores: dict[str, Mapping[str, Any]] = {}
    for kind in METRICS:
        metric = kind.model_validate({"space": space})
        reference = MeasureReference(dataset, metric, encode) if metric.measures else None
        if reference is not None:
            reference.run(Job(place(reference)), products)
        stage = Evaluate(dataset, metric, samples, sample, encode, features, reference)
        stage.run(Job(place(stage)), products)
        scores |= json.loads((places[stage.id] / "scores.json").read_text("utf-8"))["scores"]
    made = load_file(places[features.id] / "features-000-0000000.safetensors")["features"]
    return {"scores": scores, "before": before, "peak": memory(), "features": made[0].tolist()}


def memory() -> float:
    """The largest that this process had so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    folder, side, shard_count, seeds, train = Path(sys.argv[1]), *map(int, sys.argv[2:])
    torch.set_num_threads(1)
    result = evaluate(folder, side, shard_count * SHARD, seeds, train)
    print(json.dumps({**result, "cpu": time.process_time()}))
