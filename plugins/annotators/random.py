"""Random labels: the control that shows what any condition adds, whatever it means."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from fw.core.errors import FwError
from fw.core.job import Job
from fw.core.kinds import Annotator
from fw.core.types import Annotation, ConditionSpec, Observations


class Random(Annotator):
    """A random partition of the images into clusters of equal size; `permuted` has the sizes of
    another annotator's."""

    name: ClassVar[str] = "random"
    uses_features: ClassVar[bool] = False
    control: ClassVar[bool] = True

    clusters: int = Field(
        30, ge=2, description="number of clusters, K; as many as it is a control of"
    )

    @property
    def least_images(self) -> int:
        return self.clusters

    def makes(self, classes: int) -> ConditionSpec:
        return ConditionSpec("class", self.clusters)

    def annotate(self, data: Observations, job: Job) -> Annotation:
        if data.count < self.clusters:
            raise FwError(
                f"annotator random: {self.clusters} clusters need as many images, and there are "
                f"{data.count}"
            )
        order = torch.randperm(data.count, generator=job.generator("random"))
        return Annotation(ConditionSpec("class", self.clusters), order % self.clusters)
