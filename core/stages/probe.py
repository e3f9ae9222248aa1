"""Ask how well a part of one arm recognises: its encoder, or its trained model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from fw.core.diffusion.latents import Codec
from fw.core.features.reading import ArmReader
from fw.core.files.durable import write_json
from fw.core.job import Job
from fw.core.kinds import Autoencoder, Backbone, Probe, Process
from fw.core.kinds.boundaries import checked_probe_scores
from fw.core.machine.precision import Precision
from fw.core.stages.average import AverageWeights
from fw.core.stages.base import Products, Stage
from fw.core.stages.conditions import are_labels, load_annotation
from fw.core.stages.data import Data, load_split
from fw.core.stages.encode import Encode, load_features
from fw.core.stages.keys import part, read
from fw.core.stages.train import TrainDenoiser
from fw.core.types import SPLITS, Annotation, Examples, ImageSet, Split, Told


@dataclass(frozen=True, eq=False)
class ApplyProbe(Stage):
    """Makes one number for each score, and a log where the probe is trained."""

    kind: ClassVar[str] = "probe"
    version: ClassVar[int] = 2
    lighter: ClassVar[str] = (
        "take a probe that reads fewer images or an encoder with fewer features"
    )
    files: ClassVar[tuple[str, ...]] = ("scores.json", "log.jsonl")
    cost: ClassVar[int] = 2

    dataset: Data
    probe: Probe
    encode: Encode | None = read(None)
    train: TrainDenoiser | None = read(None)
    average: AverageWeights | None = read(None)
    """What makes the model's weights, where the length of their average is chosen after
    training."""
    annotate: Stage | None = read(None)
    latents: Autoencoder | None = part(None, absent=None)
    model: Backbone | None = part(None, absent=None)
    process: Process | None = part(None, absent=None)
    precision: Precision | None = part(None, absent=None)
    taught: bool | None = part(None, absent=None)
    """Whether the model's classes were made with labels, for a probe that reads what it says of
    them."""

    @property
    def label(self) -> str:
        if self.encode is not None:
            return f"{self.probe.name} of {self.encode.encoder.name}"
        assert self.train is not None
        averaged = "" if self.average is None else f", ema {self.average.width:g}"
        return f"{self.probe.name} of {self.train.model_label(self.train.model)}{averaged}"

    @property
    def columns(self) -> Mapping[str, str]:
        return self.probe.keys

    def run(self, job: Job, products: Products) -> None:
        splits = {split: load_split(self.dataset, split, products) for split in SPLITS}
        annotation = load_annotation(self.annotate, None, products)
        reading = self.probe.read(self.reader(job, products, splits, annotation))
        named = (
            annotation is not None and bool(self.taught) and are_labels(annotation, splits["train"])
        )
        train = self.examples(reading.train, splits["train"], named, reading.told)
        test = self.examples(reading.test, splits["test"], named, reading.told)
        scores = checked_probe_scores(self.probe, self.probe.score(train, test, job))
        counts = {"train": len(train), "held_out": len(test)}
        write_json(job.folder / "scores.json", {"scores": dict(scores), "real": counts})

    def reader(
        self,
        job: Job,
        products: Products,
        splits: Mapping[Split, ImageSet],
        annotation: Annotation | None,
    ) -> ArmReader:
        reader = ArmReader(self.probe, {split: data.images for split, data in splits.items()}, job)
        if self.encode is not None:
            return replace(reader, features=load_features(products(self.encode)))
        assert self.train is not None
        weights = products(self.average or self.train)
        model = self.train.denoiser(weights, annotation, job.device)
        codec = (
            None if self.latents is None else Codec(self.latents, self.dataset.shape, job.device)
        )
        return replace(reader, model=model, codec=codec, annotation=annotation)

    def examples(
        self, features: Tensor, split: ImageSet, named: bool, told: Told | None
    ) -> Examples:
        if "labels" in self.probe.requires:
            return Examples(features, split.labels, split.classes, named, told)
        return Examples(features, named=named, told=told)
