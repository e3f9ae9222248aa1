"""A stage that has made what lies in a folder, for stages that read it; and the model that a
probe read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.job import Job
from fw.core.stages.base import Products, Stage
from fw.core.stages.conditions import load_annotation
from fw.core.stages.keys import unkeyed
from fw.core.stages.probe import ApplyProbe


@dataclass(frozen=True, eq=False)
class Made(Stage):
    kind: ClassVar[str] = "made"
    files: ClassVar[tuple[str, ...]] = ()

    folder: Path = unkeyed(Path())
    name: str = ""

    @property
    def label(self) -> str:
        return self.name

    def run(self, job: Job, products: Products) -> None:
        raise NotImplementedError


def products(stage: Stage) -> Path:
    assert isinstance(stage, Made)
    return stage.folder


def trained(stage: Stage, store: Path) -> NetworkDenoiser:
    """The denoiser that a finished stage of a store has probed."""

    def lies(source: Stage) -> Path:
        return store / source.id

    assert isinstance(stage, ApplyProbe)
    assert stage.train is not None
    annotation = load_annotation(stage.annotate, None, lies)
    weights = lies(stage.average or stage.train)
    return stage.train.denoiser(weights, annotation, torch.device("cpu"))
