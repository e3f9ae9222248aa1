"""Compare the samples of one arm with real images, in the space of an encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from fw.core.diffusion.generate import conditions
from fw.core.files.durable import write_json
from fw.core.job import Job
from fw.core.kinds import Metric
from fw.core.kinds.boundaries import checked_floor, checked_limits, checked_scores
from fw.core.machine.tables import fits
from fw.core.machine.team import Team
from fw.core.settings import Samples
from fw.core.stages.base import Products, Stage
from fw.core.stages.conditions import are_labels, load_annotation
from fw.core.stages.data import Data, load_split
from fw.core.stages.encode import Encode, load_features
from fw.core.stages.features import SampleFeatures
from fw.core.stages.keys import digest, identity, read
from fw.core.stages.prior import FitPrior
from fw.core.stages.reference import MeasureReference, load_measured
from fw.core.stages.sample import Sample
from fw.core.types import Annotation, Reference

Item = TypeVar("Item")

MANY = 10_000
"""Samples of a seed from which on a team shares the seeds: fewer are compared in less time than a
team takes to start."""


@dataclass(frozen=True, eq=False)
class Evaluate(Stage):
    """Makes the scores of each sampling seed, of as many new real images as the floor, what was
    compared with what, and what scores of new images would be by chance, where that is known."""

    kind: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 3
    lighter: ClassVar[str] = (
        "take a space with fewer features, fewer `samples.count`, or a metric that "
        "compares fewer images"
    )
    files: ClassVar[tuple[str, ...]] = ("scores.json",)
    teams: ClassVar[bool] = True

    # `seed` is the run's for a metric that reads conditions: they are drawn as they were for the
    # samples.
    dataset: Data
    metric: Metric
    samples: Samples
    sample: Sample = read()
    space: Encode = read()
    features: SampleFeatures = read()
    reference: MeasureReference | None = read(None)
    annotate: Stage | None = read(None)
    prior: FitPrior | None = read(None)

    @property
    def label(self) -> str:
        return f"{self.sample.arm}, {self.metric.name} in {self.metric.space.name} space"

    @property
    def ruler(self) -> dict[str, Any]:
        """What its scores are measured by: the number of samples, and the names and digests of the
        real images, the space and the metric."""

        def marked(name: str, *facts: Any) -> str:
            return f"{name} {digest({'facts': facts})[:8]}"

        images = self.dataset
        data = images.id if isinstance(images, Stage) else identity(images)
        return {
            "n": self.samples.count,
            "reference": marked(self.dataset.name, data),
            "space": marked(self.space.encoder.name, self.space.key),
            "metric": marked(self.metric.name, identity(self.metric), self.version),
        }

    def shared(self, device: str) -> bool:
        return self.samples.seeds > 1 and self.samples.count >= MANY

    def run(self, job: Job, products: Products) -> None:
        features = load_features(products(self.space))
        annotation = load_annotation(self.annotate, self.prior, products)
        classes, of_held_out = self.classes(annotation, products) if annotation else (None, None)
        there = partial(on, self.device(features, job))
        measured = None if self.reference is None else load_measured(products(self.reference))
        reference = Reference(
            there(features["train"]),
            there(features["test"]),
            there(classes),
            None if measured is None else {name: there(each) for name, each in measured.items()},
        )
        prepared = self.metric.prepare(reference)
        made_of_samples = products(self.features)

        def of_seed(seed: int) -> dict[str, float]:
            fake = self.features.of_seed(made_of_samples, seed, job.folder)
            wanted = there(conditions(annotation, self.seed or 0, seed, range(len(fake))))
            return dict(self.compared(prepared, there(fake), wanted))

        def of_new_images() -> dict[str, float]:
            if annotation is not None and of_held_out is None:
                return {}
            return dict(self.floor(prepared, reference.held_out, there(of_held_out)))

        tasks = [partial(of_seed, seed) for seed in range(self.samples.seeds)] + [of_new_images]
        *of_seeds, floor = each_by_one(tasks, job.team)
        if not job.team.leads:
            return
        scores = {key: [of_each[key] for of_each in of_seeds] for key in self.metric.keys}
        counts = {"train": len(reference.train), "held_out": len(reference.held_out)}
        by_chance = checked_limits(self.metric, self.metric.by_chance(prepared, self.samples.count))
        made = {
            "scores": scores,
            "floor": floor,
            "real": counts,
            "by_chance": dict(by_chance),
            "basis": self.basis(reference),
        }
        write_json(job.folder / "scores.json", made)

    def device(self, features: Mapping[str, Tensor], job: Job) -> torch.device:
        """Where it is computed: on the job's device, if the metric is ready for it and the features
        (N, D) of both splits fit there."""
        size = sum(each.nbytes for each in features.values())
        here = self.metric.on_device and fits(size, job.device)
        return job.device if here else torch.device("cpu")

    def floor(self, prepared: Any, held_out: Tensor, wanted: Tensor | None) -> Mapping[str, float]:
        """Of as many new images as there are samples of one seed."""
        floor = self.metric.floor(prepared, held_out, self.samples.count, wanted)
        return checked_floor(self.metric, floor)

    def basis(self, reference: Reference) -> dict[str, Any]:
        """What every score of this stage is of: so many samples, compared with so many training
        images in a space; and how the floor came to be of as many images."""
        count, train, held_out = self.samples.count, len(reference.train), len(reference.held_out)
        real = self.metric.real_images(train, count)
        enough = "extrapolated" if self.metric.extrapolates else "fewer"
        return {
            "samples": count,
            "reference": "training images" if real else "none",
            "reference_images": real,
            "space": self.metric.space.in_short,
            "held_out": held_out,
            "floor": "equal" if held_out >= count else enough,
        }

    def compared(self, prepared: Any, fake: Tensor, wanted: Tensor | None) -> Mapping[str, float]:
        return checked_scores(self.metric, self.metric.compare(prepared, fake, wanted))

    def classes(self, annotation: Annotation, products: Products) -> tuple[Tensor, Tensor | None]:
        """The classes of the training images (N,), of labels also those that the model was not
        given, and of held-out ones. Held-out images are in no cluster."""
        train = load_split(self.dataset, "train", products)
        if train.labels is None or not are_labels(annotation, train):
            return annotation.conditions, None
        return train.labels, load_split(self.dataset, "test", products).labels


def each_by_one(tasks: Sequence[Callable[[], Item]], team: Team) -> list[Item]:
    """What tasks return that are independent of each other, each done by one of the team."""
    numbers = range(len(tasks))
    done = team.said({number: tasks[number]() for number in team.share(numbers)})
    together = {number: result for each in done for number, result in each.items()}
    return [together[number] for number in numbers]


def on(device: torch.device, tensor: Tensor | None) -> Any:
    """The tensor on the device, if there is one."""
    return None if tensor is None else tensor.to(device)
