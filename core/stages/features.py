"""Take the features of one arm's samples: what all metrics in a space compare."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from safetensors.torch import load_file, save_file
from torch import Tensor

from fw.core.files.stacked import stacked
from fw.core.job import Job
from fw.core.kinds import Encoder
from fw.core.stages.base import Products, Stage
from fw.core.stages.data import Data
from fw.core.stages.encode import Encode
from fw.core.stages.keys import read
from fw.core.stages.sample import Sample, load_shard, shards


@dataclass(frozen=True, eq=False)
class SampleFeatures(Stage):
    """Makes the features (n, D) of each file of samples, one such file after the other."""

    kind: ClassVar[str] = "features"
    lighter: ClassVar[str] = "take a space with a smaller network or with fewer features"
    files: ClassVar[tuple[str, ...]] = ("features-*-*.safetensors",)
    cost: ClassVar[int] = 2
    teams: ClassVar[bool] = True

    dataset: Data
    encoder: Encoder
    sample: Sample = read()
    space: Encode = read()

    @property
    def label(self) -> str:
        return f"{self.sample.arm} in {self.encoder.name} space"

    def run(self, job: Job, products: Products) -> None:
        network = self.space.network(products(self.space), job)
        samples = products(self.sample)
        own = job.team.share(list(shards(self.sample.samples)))
        for seed, images in job.track(own, "features"):
            name = features_name(seed, images)
            if job.kept(name) is None:
                features = self.space.features(network, load_shard(samples, seed, images), job)
                job.keep(name, partial(save_file, {"features": features}))

    def of_seed(self, folder: Path, seed: int, scratch: Path) -> Tensor:
        """The features (n, D) of a sampling seed's samples, of a finished product; in a file on the
        disk of `scratch` where they are many."""
        names = [features_name(s, i) for s, i in shards(self.sample.samples) if s == seed]
        return stacked((load_file(folder / name)["features"] for name in names), scratch)


def features_name(seed: int, images: range) -> str:
    return f"features-{seed:03d}-{images.start:07d}.safetensors"
