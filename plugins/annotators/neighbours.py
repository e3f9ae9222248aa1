"""The nearest training images of each one: the part that `knn` and `retrieval` share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from fw.core.errors import FwError, StageFailed
from fw.core.features.points import all_directions
from fw.core.files.stacked import stacked
from fw.core.job import Job
from fw.core.kinds import Annotator
from fw.core.machine.tables import all_finite
from fw.core.randomness import seed_from
from fw.core.types import Observations

SAME = 1e-6
"""Directions that differ by less in every coordinate are equal: only rounding ranks them."""

AT_ONCE = 2**22
"""Numbers of conditions that are in memory at once."""

PAIRS = {"cpu": 2**22, "cuda": 2**27}
"""Products of pairs that are in memory at once."""


class Neighbours(Annotator):
    """Conditions that are features of an image's k nearest others, by cosine. They take N * k *
    D * 4 bytes on the disk."""

    form: ClassVar[str] = "tokens"

    k: int = Field(
        4,
        ge=1,
        description="neighbours of an image; never itself, though there may be equal images",
    )
    index: Literal["exact", "ivf"] = Field(
        "exact",
        description=(
            "exact compares all pairs; ivf only images in near cells out of sqrt(N), for large sets"
        ),
    )
    nprobe: int = Field(8, ge=1, description="cells that ivf looks into")

    @property
    def least_images(self) -> int:
        return self.k + 1

    def nearest(self, data: Observations, job: Job) -> tuple[Tensor, Tensor]:
        """Features of length 1, float32 (N, D), and the numbers of each one's neighbours (N, k),
        nearest first."""
        points = self._directions(data, job)
        if self.index == "exact":
            numbers = most_similar(points.to(job.device), self.k + 1).cpu()
        else:
            _, by_faiss = self._cells(points, job).search(points.numpy(), self.k + 1)
            numbers = torch.from_numpy(by_faiss)
        others = without_itself(numbers)  # (N, k)
        if (others < 0).any():
            raise FwError(
                f"annotator {self.name}: ivf found fewer than {self.k} neighbours of an image in "
                f"{self.nprobe} cells: raise nprobe, or take `index: exact`"
            )
        return points, others

    def _directions(self, data: Observations, job: Job) -> Tensor:
        """The features (N, D) at length 1."""
        if data.features is None:
            raise StageFailed(
                f"annotator {self.name} needs features to compare: give the arm an encoder"
            )
        if data.count < self.k + 1:
            raise FwError(
                f"annotator {self.name}: {self.k} neighbours of an image need {self.k + 1} images, "
                f"and there are {data.count}"
            )
        features = data.features.float().cpu()
        if not all_finite(features):
            raise StageFailed(f"annotator {self.name}: the encoder's features are not all finite")
        points = all_directions(features, job.folder)
        zero = int((~points.any(dim=1)).sum())
        if zero:
            raise StageFailed(
                f"annotator {self.name}: the features of {zero} of {data.count} images are all "
                "zero and point nowhere: take another encoder"
            )
        if (points.amax(dim=0) - points.amin(dim=0)).max() < SAME:
            raise StageFailed(
                f"annotator {self.name}: the features of all images point the same way, so none is "
                "nearer than others: take another encoder"
            )
        return points

    def _cells(self, points: Tensor, job: Job) -> Any:
        """A faiss index of the points in cells, in which the inner product is the cosine."""
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        count, size = points.shape
        cells = max(1, round(count**0.5))
        flat = faiss.IndexFlatIP(size)
        index: Any = faiss.IndexIVFFlat(flat, size, cells, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed = seed_from(job.seed, self.name) % 2**31
        index.cp.min_points_per_centroid = 1
        index.nprobe = min(self.nprobe, cells)
        index.train(points.numpy())
        index.add(points.numpy())
        return index


def most_similar(points: Tensor, count: int) -> Tensor:
    """The numbers of the points (N, D) whose product with each is largest: int64 (N, count)."""
    blocks = points.split(max(1, PAIRS[points.device.type] // len(points)))
    return torch.cat([(block @ points.T).topk(count).indices for block in blocks])


def taken(rows: Tensor, numbers: Tensor, folder: Path) -> Tensor:
    """The rows (N, ...) with these numbers (M, ...), in a file on the disk of this folder where
    they are many."""
    size = rows[:1].numel() * numbers[:1].numel()
    return stacked((rows[few] for few in numbers.split(max(1, AT_ONCE // size))), folder)


def without_itself(numbers: Tensor) -> Tensor:
    """The numbers (N, k + 1) of each image's nearest, without its own: (N, k).

    Where others are equal to it, its own need not be the first, and may be missing.
    """
    itself = numbers == torch.arange(len(numbers))[:, None]
    last = itself.int().argsort(dim=1, stable=True)
    return numbers.gather(1, last)[:, :-1]
