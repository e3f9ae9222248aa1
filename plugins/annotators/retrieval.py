"""The features of an image's nearest neighbours as its condition: retrieval-augmented diffusion
(arXiv 2204.11824)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fw.core.job import Job
from fw.core.types import Annotation, ConditionSpec, Observations
from fw.plugins.annotators.neighbours import Neighbours, taken


class Retrieval(Neighbours):
    """The features of an image's k nearest others as a set (RDM, arXiv 2204.11824).

    The database is the training set, so an image is left out of its own neighbours. To sample, a
    pseudo-query is drawn from p_D: an image's weight is the number of images whose neighbour it is.
    Its own neighbours are the condition. `top_m` truncates p_D to the images that are retrieved
    most often: precision rises, recall falls. The model reads features of real images when it
    samples: look at `memorisation`, too.
    """

    version: ClassVar[int] = 3
    name: ClassVar[str] = "retrieval"

    top_m: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the images, the most retrieved, that are pseudo-queries",
    )

    def annotate(self, data: Observations, job: Job) -> Annotation:
        points, others = self.nearest(data, job)
        conditions = taken(points, others, job.folder)  # (N, k, D)
        queries = self._pseudo_queries(others, job)
        return Annotation(
            ConditionSpec("tokens", points.shape[1], self.k),
            conditions,
            bank=taken(conditions, queries, job.folder),
        )

    def _pseudo_queries(self, others: Tensor, job: Job) -> Tensor:
        """As many draws from p_D as there are images. Where several are equally frequent at the
        limit of `top_m`, chance decides: the earlier ones may be of one class."""
        count = len(others)
        retrieved = others.flatten().bincount(minlength=count)  # (N,): p_D * k * N
        order = torch.randperm(count, generator=job.generator(self.name, "order"))
        ranks = retrieved[order].argsort(descending=True, stable=True)
        kept = order[ranks[: max(1, round(self.top_m * count))]]
        drawn = torch.multinomial(
            retrieved[kept].double(),
            count,
            replacement=True,
            generator=job.generator(self.name),
        )
        return kept[drawn]
