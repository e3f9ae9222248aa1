"""Train a denoiser; an online annotator makes its conditions meanwhile."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fw.core import settings
from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.latents import Latents
from fw.core.files.durable import write_json
from fw.core.files.layout import MODEL
from fw.core.files.weights import noted
from fw.core.job import Job
from fw.core.kinds import Backbone, Joint, Objective, Online, Process
from fw.core.kinds.boundaries import checked_annotation, checked_network
from fw.core.learning.parts.objectives import Objectives
from fw.core.learning.parts.online import OnlineGrouping
from fw.core.learning.parts.part import Part
from fw.core.learning.parts.snapshots import Snapshots, snapshot_file
from fw.core.learning.state import state_of
from fw.core.learning.train import train
from fw.core.machine.precision import Precision
from fw.core.machine.transfer import placed
from fw.core.randomness import forked
from fw.core.stages.annotate import AGREEMENT, ANNOTATION, Annotate, beside_pixels, group_quality
from fw.core.stages.base import Products, ReportSection, Stage
from fw.core.stages.conditions import load_annotation
from fw.core.stages.continuing import STATE
from fw.core.stages.data import Data, load_split
from fw.core.stages.encode import Encode, load_features
from fw.core.stages.keys import part, read, unkeyed
from fw.core.stages.latents import EncodeLatents
from fw.core.types import Annotation, ConditionSpec, ImageSet


@dataclass(frozen=True, eq=False)
class TrainDenoiser(Stage):
    """Makes the averaged weights, those of its snapshots and a log. With an online annotator it
    also makes what Annotate does."""

    kind: ClassVar[str] = "train"
    version: ClassVar[int] = 3
    lighter: ClassVar[str] = (
        "take a smaller `train.batch`, more parts with `train.accumulate`, or "
        "`train.checkpointing: true`"
    )
    files: ClassVar[tuple[str, ...]] = (
        "model.safetensors",
        "snapshot-*.safetensors",
        "average-*-*.safetensors",
        STATE,
        "log.jsonl",
        "annotation.safetensors",
        "quality.json",
    )
    cost: ClassVar[int] = 10
    teams: ClassVar[bool] = True

    dataset: Data
    model: Backbone
    process: Process
    train: settings.Train
    annotator: Online | None = part(None, absent=None)
    objectives: tuple[Objective, ...] = part((), absent=())
    annotate: Stage | None = read(None)
    latents: EncodeLatents | None = read(None)
    targets: tuple[Encode | None, ...] = read((), "target")
    """For each objective the stage that makes the features for its term, or None."""
    worse_than: Backbone | None = unkeyed(None)
    """The arm's own model, if this trains the worse one that guidance asks for."""

    @property
    def label(self) -> str:
        own = self.model_label(self.worse_than or self.model)
        return ", ".join(
            [own, *map(objective_label, self.objectives), *(["worse"] if self.worse_than else [])]
        )

    def model_label(self, model: Backbone) -> str:
        """The names of the model and of what makes its conditions."""
        if self.conditions is None:
            return f"{model.name}, no conditions"
        if isinstance(self.conditions, TrainDenoiser):
            assert self.conditions.annotator is not None
            return f"{model.name}, {self.conditions.annotator.name}"
        assert isinstance(self.conditions, Annotate)
        encode = self.conditions.encode
        source = f" of {encode.encoder.name}" if encode is not None else ""
        return f"{model.name}, {self.conditions.annotator.name}{source}"

    @property
    def conditions(self) -> Stage | None:
        """The stage that makes the conditions; with an online annotator, this one."""
        return self if self.annotator is not None else self.annotate

    @property
    def section(self) -> ReportSection | None:
        return AGREEMENT if self.annotator is not None else None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what is diffused: the images, or their latents."""
        shape = self.dataset.shape
        return shape if self.latents is None else self.latents.latents.latent_shape(shape)

    @property
    def goes_on(self) -> bool:
        """Whether it begins with a shorter training, and can be the beginning of a longer one. An
        online annotator that waits for a share of all steps depends on how many there are."""
        waits = self.annotator is not None and self.annotator.start > 0
        return self.train.keep is not None and not waits

    @property
    def splits(self) -> int:
        batches = [self.train.batch]
        if isinstance(self.model, Joint) and self.model.labelled:
            batches.append(self.model.labelled)
        return min(batches) // self.train.accumulate

    def least_memory(self, batch: int | None) -> int:
        """Weights, their average, their gradient and its two moments; the images of a step and
        their noise."""
        numbers = 2 * self.train.batch * math.prod(self.shape)
        with contextlib.suppress(Exception), torch.device("meta"), forked():
            network = self.model.build(self.shape, None)
            numbers += 5 * sum(each.numel() for each in network.parameters())
        return numbers * torch.float32.itemsize

    def run(self, job: Job, products: Products) -> None:
        online = None if self.annotator is None else OnlineGrouping(self.annotator)
        note = noted(self.supervision)
        parts: list[Part] = [] if online is None else [online]
        parts.append(Objectives(self.objectives, self.features(products)))
        if self.train.snapshots:
            parts.append(Snapshots(self.train, note))
        averaged = train(
            self.model,
            self.process,
            self.data(products),
            load_annotation(self.annotate, None, products),
            self.train,
            job,
            parts,
        )
        if not job.team.leads:
            return
        save_file(state_of(averaged), job.folder / MODEL, note)
        if self.goes_on:
            job.keep_state(STATE)
        if online is not None:
            data = load_split(self.dataset, "train", products)
            annotation, groups = online.annotation(len(data))
            checked_annotation(online.annotator, annotation, len(data)).save(
                job.folder / ANNOTATION
            )
            count = len(online.prototypes)
            quality = group_quality(groups, count, data.labels)
            quality |= beside_pixels(online.annotator, groups, count, data, job)
            write_json(job.folder / "quality.json", quality)

    def data(self, products: Products) -> ImageSet | Latents:
        if self.latents is not None:
            return Latents.load(products(self.latents))
        return load_split(self.dataset, "train", products).without_labels()

    def features(self, products: Products) -> list[Tensor | None]:
        """For each objective the features (N, F) of the training images that its term sees, or
        None."""
        return [
            None if target is None else load_features(products(target))["train"]
            for target in self.targets
        ]

    def weights_after(self, step: int | None) -> str:
        """The file of the averaged weights of a snapshot; None is the end."""
        return MODEL if step in (None, self.train.steps) else snapshot_file(step)

    def denoiser(
        self,
        folder: Path,
        annotation: Annotation | None,
        device: torch.device,
        precision: Precision | None = None,
        file: str = MODEL,
    ) -> NetworkDenoiser:
        """The trained denoiser of a finished product, its own or one of weights that were averaged
        otherwise; `file` is the weights. `precision` is by default that of the training."""
        spec: ConditionSpec | None = annotation.spec if annotation is not None else None
        network = checked_network(self.model, self.model.build(self.shape, spec))
        network.load_state_dict(load_file(folder / file))
        bf16 = (precision or self.train.precision) == "bf16"
        return NetworkDenoiser(placed(network, device).eval(), self.process, bf16=bf16)


def objective_label(objective: Objective) -> str:
    return (
        objective.name
        if objective.target is None
        else f"{objective.name} to {objective.target.name}"
    )
