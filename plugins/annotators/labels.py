"""True labels as conditions, all or some of them: the oracle for label-free annotations."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fw.core.errors import StageFailed
from fw.core.job import Job
from fw.core.kinds import Annotator
from fw.core.types import Annotation, ConditionSpec, Observations
from fw.registry import Neutral


class Labels(Annotator):
    """The dataset's own labels. With `known` below 1 the others are withheld, as in
    semi-supervised learning."""

    name: ClassVar[str] = "labels"
    uses_features: ClassVar[bool] = False
    uses_labels: ClassVar[bool] = True

    known: Annotated[float, Neutral(1.0, names_folders=True)] = Field(
        1.0, gt=0, le=1, description="share of each class whose label is known, at least one image"
    )

    @property
    def partial(self) -> bool:
        return self.known < 1

    def makes(self, classes: int) -> ConditionSpec:
        return ConditionSpec("class", classes)

    def caution(self, images: int, classes: int) -> str | None:
        if self.known * images < classes:
            return (
                f"known {self.known:g} of {images:,} images in {classes} classes is less than one "
                f"of each: one of each is known, {classes} labels, which is a share of "
                f"{classes / images:.2g}"
            )
        if self.partial and (1 - self.known) * images < classes / 2:
            return (
                f"known {self.known:g} of {images:,} images in {classes} classes leaves none "
                "without a label: a model learns the null condition from train.cond_drop alone"
            )
        return None

    def annotate(self, data: Observations, job: Job) -> Annotation:
        if data.labels is None:
            raise StageFailed("annotator labels needs a dataset with labels")
        spec, labels = ConditionSpec("class", data.classes), data.labels.long().cpu()
        if not self.partial:
            return Annotation(spec, labels)
        known = torch.cat([self._drawn(labels, each, job) for each in labels.unique().tolist()])
        return Annotation(
            spec,
            torch.full_like(labels, -1).index_copy(0, known, labels[known]),
            bank=labels[known],
        )

    def _drawn(self, labels: Tensor, label: int, job: Job) -> Tensor:
        """The numbers of the images of a class that keep their label."""
        places = (labels == label).nonzero().flatten()
        count = max(1, round(self.known * len(places)))
        return places[torch.randperm(len(places), generator=job.generator("known", label))[:count]]
