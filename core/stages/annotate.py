"""Give every training image a condition: the model's own labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fw.core.features.quality import cluster_quality, utilisation
from fw.core.files.durable import write_json
from fw.core.job import Job
from fw.core.kinds import Annotator
from fw.core.kinds.boundaries import checked_annotation
from fw.core.stages.base import Products, ReportSection, Stage
from fw.core.stages.data import Data, load_split
from fw.core.stages.encode import Encode, load_features
from fw.core.stages.keys import read
from fw.core.types import Observations
from fw.registry import NOTHING, Supervision, labels_of

ANNOTATION = "annotation.safetensors"

AGREEMENT = ReportSection(
    "annotation",
    "Annotations",
    "How the conditions agree with the true labels, which only score them.",
)


@dataclass(frozen=True, eq=False)
class Annotate(Stage):
    """Makes one condition per image, and scores of how they agree with the true labels."""

    kind: ClassVar[str] = "annotate"
    version: ClassVar[int] = 2
    files: ClassVar[tuple[str, ...]] = ("annotation.safetensors", "quality.json")

    dataset: Data
    annotator: Annotator
    encode: Encode | None = read(None)

    @property
    def label(self) -> str:
        return self.annotator.name

    @property
    def section(self) -> ReportSection:
        return AGREEMENT

    @property
    def labels(self) -> Supervision:
        return labels_of(self.dataset.name) if self.annotator.uses_labels else NOTHING

    def run(self, job: Job, products: Products) -> None:
        data = load_split(self.dataset, "train", products)
        with_labels = self.annotator.uses_labels
        observations = Observations(
            count=len(data),
            features=load_features(products(self.encode))["train"]
            if self.encode is not None
            else None,
            labels=data.labels if with_labels else None,
            classes=data.classes if with_labels else 0,
        )
        annotation = checked_annotation(
            self.annotator, self.annotator.annotate(observations, job), len(data)
        )
        annotation.save(job.folder / ANNOTATION)
        known = annotation.known
        labels = data.labels[known] if data.labels is not None else None
        are_groups = annotation.spec.form == "class"
        quality = (
            group_quality(annotation.conditions[known], annotation.spec.size, labels)
            if are_groups
            else {}
        )
        write_json(job.folder / "quality.json", quality)


def group_quality(groups: Tensor, count: int, labels: Tensor | None) -> dict[str, float]:
    """Scores of the training images' groups (N,), ids below `count`. The true labels (N,) only
    score them."""
    agreement = cluster_quality(groups, labels) if labels is not None else {}
    return utilisation(groups, count) | agreement
