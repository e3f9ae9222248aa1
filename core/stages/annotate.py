"""Give every training image a condition: the model's own labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fw.core.features.quality import cluster_quality, utilisation
from fw.core.features.yardstick import compared_with_pixels
from fw.core.files.durable import write_json
from fw.core.job import Job
from fw.core.kinds import Annotator
from fw.core.kinds.boundaries import checked_annotation
from fw.core.stages.base import Products, ReportSection, Stage
from fw.core.stages.data import Data, load_split
from fw.core.stages.encode import Encode, load_features
from fw.core.stages.keys import read
from fw.core.types import ImageSet, Observations
from fw.registry import NOTHING, Supervision, labels_of

ANNOTATION = "annotation.safetensors"

AGREEMENT = ReportSection(
    "annotation",
    "Annotations",
    "How the conditions agree with the true labels, which only score them. `ami_pixels` is the AMI "
    "of as many clusters of plain pixels.",
)


@dataclass(frozen=True, eq=False)
class Annotate(Stage):
    """Makes one condition per image, and scores of how they agree with the true labels."""

    kind: ClassVar[str] = "annotate"
    version: ClassVar[int] = 3
    lighter: ClassVar[str] = (
        "take fewer `clusters`, an annotator that compares fewer images at once, or an "
        "encoder with fewer features"
    )
    files: ClassVar[tuple[str, ...]] = ("annotation.safetensors", "quality.json")
    teams: ClassVar[bool] = True

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

    def shared(self, device: str) -> bool:
        return self.annotator.shares

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
        if not job.team.leads:
            return
        annotation.save(job.folder / ANNOTATION)
        known, count = annotation.known, annotation.spec.size
        quality: dict[str, float] = {}
        if annotation.spec.form == "class":
            groups = annotation.conditions[known]
            labels = None if data.labels is None else data.labels[known]
            quality = group_quality(groups, count, labels)
            if self.ought_to_beat_pixels:
                quality |= beside_pixels(self.annotator, groups, count, data, job, known)
        write_json(job.folder / "quality.json", quality)

    @property
    def ought_to_beat_pixels(self) -> bool:
        """Whether its groups are found, in features that are meant to be better than pixels."""
        annotator, encode = self.annotator, self.encode
        made = not (annotator.control or annotator.uses_labels)
        return made and encode is not None and not encode.encoder.control


def group_quality(groups: Tensor, count: int, labels: Tensor | None) -> dict[str, float]:
    """Scores of the training images' groups (N,), ids below `count`. The true labels (N,) only
    score them."""
    agreement = cluster_quality(groups, labels) if labels is not None else {}
    return utilisation(groups, count) | agreement


def beside_pixels(
    annotator: Annotator,
    groups: Tensor,
    count: int,
    data: ImageSet,
    job: Job,
    known: Tensor | None = None,
) -> dict[str, float]:
    """The score of as many clusters of pixels, where there are labels of two classes or more, and
    a warning if the groups (n,) of the images, or of the `known` (N,) of them, are hardly
    better."""
    if data.labels is None:
        return {}
    places = None if known is None else known.nonzero().flatten()
    labels = data.labels if places is None else data.labels[places]
    if len(labels.unique()) < 2:
        return {}
    compared = compared_with_pixels(groups, count, data.images, labels, job.seed, places)
    if warning := compared.warning:
        job.warn(f"annotator {annotator.name}: {warning}")
    return {"ami_pixels": compared.pixels}
