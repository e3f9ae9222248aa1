"""Ask how well a part of one arm recognises: its encoder, or its trained model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fw.core.diffusion.latents import Codec
from fw.core.features.reading import asked, held_out
from fw.core.features.reading import read as read_model
from fw.core.files.durable import write_json
from fw.core.job import Job
from fw.core.kinds import Autoencoder, Backbone, Probe, Process
from fw.core.kinds.boundaries import checked_probe_scores
from fw.core.stages.base import Products, Stage, part, read
from fw.core.stages.conditions import are_labels, load_annotation
from fw.core.stages.data import Data, load_split
from fw.core.stages.encode import Encode, load_features
from fw.core.stages.train import TrainDenoiser
from fw.core.types import Examples, ImageSet, Told


@dataclass(frozen=True, eq=False)
class ApplyProbe(Stage):
    """Makes one number for each score, and a log where the probe is trained."""

    kind: ClassVar[str] = "probe"
    files: ClassVar[tuple[str, ...]] = ("scores.json", "log.jsonl")
    cost: ClassVar[int] = 2

    dataset: Data
    probe: Probe
    encode: Encode | None = read(None)
    train: TrainDenoiser | None = read(None)
    annotate: Stage | None = read(None)
    latents: Autoencoder | None = part(None, absent=None)
    model: Backbone | None = part(None, absent=None)
    process: Process | None = part(None, absent=None)
    precision: str | None = part(None, absent=None)
    taught: bool | None = part(None, absent=None)
    """Whether the model's classes were made with labels, for a probe that reads what it says of them."""

    @property
    def label(self) -> str:
        if self.encode is not None:
            return f"{self.probe.name} of {self.encode.encoder.name}"
        assert self.train is not None
        return f"{self.probe.name} of {self.train.model_label(self.train.model)}"

    @property
    def columns(self) -> Mapping[str, str]:
        return self.probe.keys

    def run(self, job: Job, products: Products) -> None:
        splits = {
            "train": load_split(self.dataset, "train", products),
            "test": load_split(self.dataset, "test", products),
        }
        annotation, told = load_annotation(self.annotate, None, products), None
        features: Mapping[str, Tensor]
        if self.encode is not None:
            features = load_features(products(self.encode))
        else:
            assert self.train is not None
            model = self.train.denoiser(products(self.train), annotation, job.device)
            codec = None if self.latents is None else Codec(self.latents, self.dataset.shape, job.device)
            if self.probe.reads == "errors":
                assert annotation is not None
                told = asked(model, annotation.spec.size)
                features = {"train": annotation.conditions, "test": held_out(splits["test"].images, codec, job)}
            else:
                features = {
                    name: read_model(self.probe, model, split.images, f"read {name}", codec, job)
                    for name, split in splits.items()
                }
        named = annotation is not None and bool(self.taught) and are_labels(annotation, splits["train"])
        train, test = (self.examples(features[name], split, named, told) for name, split in splits.items())
        scores = checked_probe_scores(self.probe, self.probe.score(train, test, job))
        counts = {"train": len(train), "held_out": len(test)}
        write_json(job.folder / "scores.json", {"scores": dict(scores), "real": counts})

    def examples(self, features: Tensor, split: ImageSet, named: bool, told: Told | None) -> Examples:
        if "labels" in self.probe.requires:
            return Examples(features, split.labels, split.classes, named, told)
        return Examples(features, named=named, told=told)
