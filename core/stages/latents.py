"""Encode the training images as the latents that a model is trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fw.core.diffusion.latents import Codec
from fw.core.files.durable import write_json
from fw.core.job import Job
from fw.core.kinds import Autoencoder
from fw.core.stages.base import Products, ReportSection, Stage
from fw.core.stages.data import Data, load_split

LATENTS = ReportSection(
    "latents",
    "Latents",
    "Mean and standard deviation of the latents of held-out images, and by how many of the 256 "
    "levels the images that are decoded from them are off (root mean square).",
)


@dataclass(frozen=True, eq=False)
class EncodeLatents(Stage):
    """Makes the latents, with `flip` also those of the mirror images, and scores of how well
    they decode."""

    kind: ClassVar[str] = "latents"
    version: ClassVar[int] = 2
    lighter: ClassVar[str] = "take a smaller `size` of the data set, or a lighter autoencoder"
    files: ClassVar[tuple[str, ...]] = ("latents-*.safetensors", "quality.json")
    cost: ClassVar[int] = 4
    teams: ClassVar[bool] = True

    dataset: Data
    latents: Autoencoder
    flip: bool

    @property
    def label(self) -> str:
        return self.latents.name

    @property
    def section(self) -> ReportSection:
        return LATENTS

    def run(self, job: Job, products: Products) -> None:
        images = load_split(self.dataset, "train", products).images
        codec = Codec(self.latents, self.dataset.shape, job.device)
        codec.encode_split(images, self.flip, job)
        job.team.wait()
        if job.team.leads:
            quality = codec.quality(load_split(self.dataset, "test", products).images)
            write_json(job.folder / "quality.json", quality)
