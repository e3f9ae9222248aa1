"""Another annotator's conditions, given to the wrong images: the control for what they mean.

A random partition of equal sizes differs from clusters in two ways: it means nothing, and its sizes
are other ones. This one differs in the first alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator

from fw.core.job import Job
from fw.core.kinds import Annotator, Online
from fw.core.types import Annotation, ConditionSpec, Observations


class Permuted(Annotator):
    """The conditions of another annotator, permuted over the images at random: as many of each, and
    none says anything of its image.

    `of: {name: kmeans, clusters: 50}` is the control for an arm with that annotator: the same
    encoder, clusters, sizes and prior. What differs between the two arms is what the clusters mean.
    """

    name: ClassVar[str] = "permuted"
    control: ClassVar[bool] = True

    of: Annotator = Field(
        description="the annotator of the arm that this is the control of; its conditions are "
        "permuted",
        examples=["kmeans"],
    )

    @model_validator(mode="after")
    def _made_before_training(self) -> Self:
        if isinstance(self.of, Online):
            raise ValueError(
                f"`of` is annotator '{self.of.name}', whose conditions are made while a model "
                "learns; name one that has them before, such as kmeans"
            )
        return self

    @property
    def uses_features(self) -> bool:  # type: ignore[override]
        return self.of.uses_features

    @property
    def uses_labels(self) -> bool:  # type: ignore[override]
        return self.of.uses_labels

    @property
    def form(self) -> str:  # type: ignore[override]
        return self.of.form

    @property
    def partial(self) -> bool:
        return self.of.partial

    @property
    def requires(self) -> frozenset[str]:
        return self.of.requires

    @property
    def provides(self) -> frozenset[str]:
        return self.of.provides

    @property
    def least_images(self) -> int:
        return self.of.least_images

    def makes(self, classes: int) -> ConditionSpec | None:
        return self.of.makes(classes)

    def caution(self, images: int, classes: int) -> str | None:
        return self.of.caution(images, classes)

    def annotate(self, data: Observations, job: Job) -> Annotation:
        """The same conditions and the same bank as of the annotator itself, which has the same
        job."""
        annotation = self.of.annotate(data, job)
        order = torch.randperm(data.count, generator=job.generator("permuted"))
        return replace(annotation, conditions=annotation.conditions[order])
