"""Make an average of a training's weights whose length is chosen after it (arXiv 2312.02696)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from safetensors.torch import load_file, save_file

from fw.core.files.layout import MODEL
from fw.core.files.weights import noted
from fw.core.job import Job
from fw.core.learning.parts.snapshots import average_file
from fw.core.learning.posthoc import PowerAverage, WeightedSum, factors, kept_averages
from fw.core.stages.base import Products, Stage
from fw.core.stages.keys import read
from fw.core.stages.train import TrainDenoiser


@dataclass(frozen=True, eq=False)
class AverageWeights(Stage):
    """Makes the averaged weights after one of the steps at which the training kept its own."""

    kind: ClassVar[str] = "average"
    lighter: ClassVar[str] = "take a smaller model"
    files: ClassVar[tuple[str, ...]] = (MODEL,)

    width: float
    step: int
    train: TrainDenoiser = read()

    @property
    def label(self) -> str:
        return f"{self.train.label}, ema {self.width:g}"

    def run(self, job: Job, products: Products) -> None:
        folder = products(self.train)
        kept = kept_averages(self.train.train, self.step)
        chosen = factors(kept, PowerAverage(self.width, self.step)).tolist()
        total = WeightedSum()
        for average, factor in job.track(list(zip(kept, chosen, strict=True)), "average"):
            total.add(load_file(folder / average_file(average)), factor)
        own = load_file(folder / self.train.weights_after(self.step))
        save_file(total.like(own), job.folder / MODEL, noted(self.supervision))
