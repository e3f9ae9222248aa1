"""Clusters around training images that are drawn at random."""

from typing import ClassVar

import torch
from pydantic import Field

from fw.core.errors import FwError, StageFailed
from fw.core.job import Job
from fw.core.kinds import Annotator
from fw.core.types import Annotation, ConditionSpec, Observations
from fw.registry import hookimpl

FW_API = 2


class Example(Annotator):
    """The nearest of some training images drawn at random: k-means before its first iteration,
    without labels."""

    name: ClassVar[str] = "example"

    clusters: int = Field(10, ge=2, description="number of images drawn, K")

    def annotate(self, data: Observations, job: Job) -> Annotation:
        if data.features is None:
            raise StageFailed(f"annotator {self.name} compares features: give the arm an encoder")
        if data.count < self.clusters:
            raise FwError(
                f"annotator {self.name}: {self.clusters} clusters need as many images, not "
                f"{data.count}"
            )
        drawn = torch.randperm(data.count, generator=job.generator(self.name))[: self.clusters]
        distances = torch.cdist(data.features, data.features[drawn])  # (N, K)
        return Annotation(ConditionSpec("class", self.clusters), distances.argmin(dim=1))


@hookimpl
def fw_components() -> list[type[Annotator]]:
    return [Example]
