"""An image's own feature and those of its nearest neighbours as its condition: kNN-Diffusion
(arXiv 2204.02849)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from fw.core.job import Job
from fw.core.types import Annotation, ConditionSpec, Observations
from fw.plugins.annotators.neighbours import Neighbours, taken


class KNN(Neighbours):
    """The features of an image and of its k nearest others as a set (kNN-Diffusion, arXiv
    2204.02849).

    The paper has k = 10. It samples with the feature of a text in place of the image's own; here,
    without texts, a sample's condition is that of a random training image. The model reads features
    of real images when it samples: look at `memorisation`, too.
    """

    version: ClassVar[int] = 2
    name: ClassVar[str] = "knn"

    include_query: bool = Field(
        True, description="whether the image's own feature is among the tokens, as the first"
    )

    def annotate(self, data: Observations, job: Job) -> Annotation:
        points, others = self.nearest(data, job)
        chosen = (
            torch.cat([torch.arange(data.count)[:, None], others], dim=1)
            if self.include_query
            else others
        )
        conditions = taken(points, chosen, job.folder)  # (N, k + 1, D), or (N, k, D)
        return Annotation(
            ConditionSpec("tokens", conditions.shape[2], conditions.shape[1]), conditions
        )
