"""Measure once what a metric wants to know of the real images, for all arms and runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fw.core.job import Job
from fw.core.kinds import Metric
from fw.core.kinds.boundaries import checked_measured
from fw.core.machine.tables import fits
from fw.core.stages.base import Products, Stage
from fw.core.stages.data import Data
from fw.core.stages.encode import Encode, load_features
from fw.core.stages.keys import read
from fw.core.types import Reference

MEASURED = "reference.safetensors"


@dataclass(frozen=True, eq=False)
class MeasureReference(Stage):
    """Makes the tensors that the metric's `measure` gives names to."""

    kind: ClassVar[str] = "reference"
    lighter: ClassVar[str] = "take a space with fewer features, or a smaller data set"
    files: ClassVar[tuple[str, ...]] = (MEASURED,)

    dataset: Data
    metric: Metric
    space: Encode = read()

    @property
    def label(self) -> str:
        return f"for {self.metric.name} in {self.metric.space.name} space"

    def run(self, job: Job, products: Products) -> None:
        features = load_features(products(self.space))
        size = sum(each.nbytes for each in features.values())
        here = self.metric.on_device and fits(size, job.device)
        device = job.device if here else torch.device("cpu")
        reference = Reference(features["train"].to(device), features["test"].to(device))
        measured = checked_measured(self.metric, self.metric.measure(reference))
        tensors = {name: tensor.cpu().contiguous() for name, tensor in measured.items()}
        save_file(tensors, job.folder / MEASURED)


def load_measured(folder: Path) -> Mapping[str, Tensor]:
    """What was measured, of a finished product."""
    return load_file(folder / MEASURED)
