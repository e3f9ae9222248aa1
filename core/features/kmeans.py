"""k-means: a start by k-means++ on some of the points, then Lloyd's iterations over all
(Arthur and Vassilvitskii, SODA 2007).

Iterations over some of the points bring the centroids near to where they end, at a fraction of the
cost of iterations over all. On the CPU scikit-learn starts and faiss iterates; on a GPU torch does
both. In a team each member iterates over its points, by torch, and their sums are added up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fw.core.features.lloyd import Lloyd
from fw.core.machine.team import ALONE, Team
from fw.core.randomness import seed_from, some

START = 64
"""Points for each centroid from which the start is made."""

MANY = 1000
"""Centroids from which on a team is worth its start: with fewer, iterations over a million points
take seconds."""


class Centroids:
    """`count` centroids of points (N, D), which must be finite and safe to square. Each member of a
    team gives its rows of them."""

    def __init__(
        self,
        points: Tensor,
        count: int,
        seed: int,
        iterations: int = 25,
        restarts: int = 1,
        spherical: bool = False,
        tolerance: float = 3e-4,
        team: Team = ALONE,
    ):
        """Of `restarts` starts, the one with the smallest distortion is kept. Iterations end where
        that falls by less than the share `tolerance`.

        `spherical` centroids stay on the unit sphere, and points are compared by cosine.
        """
        lloyd = Lloyd(count, iterations, spherical, tolerance, team)
        faiss = ByFaiss(count, iterations, spherical, tolerance)
        on_host = points.device.type == "cpu"
        self.by = faiss if on_host and team.size == 1 else lloyd
        plus_plus = faiss.plus_plus if on_host else lloyd.plus_plus
        total = int(team.added([len(points)])[0])
        few = some(total, START * count, seed, "start").to(points.device)
        start = of_all(points, few, total, team)
        own = points if len(few) == total else team.own(start)
        tries = [
            self.by.descend(own, plus_plus(start, seed_from(seed, number) % 2**31))
            for number in range(restarts)
        ]
        self.vectors, self.distortion = min(tries, key=lambda each: each[1])
        """The centroids (K, D), and the sum of squared distances, or minus that of cosines."""
        if own is not points:
            self.vectors, self.distortion = self.by.descend(points, self.vectors)

    def nearest(self, points: Tensor) -> Tensor:
        """The number of the centroid that is nearest to each point: int64 (N,)."""
        return self.by.nearest(points, self.vectors)


def of_all(points: Tensor, numbers: Tensor, total: int, team: Team) -> Tensor:
    """The rows with these numbers (n,), in order, of the points (N, D) of all members, each of
    which gives its own."""
    if team.size == 1:
        return points if len(numbers) == total else points[numbers]
    rows = team.rows(total)
    own = (numbers >= rows.start) & (numbers < rows.stop)
    found = points.new_zeros(len(numbers), points.shape[1])
    found[own] = points[numbers[own] - rows.start]
    return team.total(found)


@dataclass(frozen=True)
class ByFaiss:
    """On the CPU, with as many threads as torch has; see `Centroids` for the settings."""

    count: int
    iterations: int
    spherical: bool
    tolerance: float

    def plus_plus(self, points: Tensor, seed: int) -> Tensor:
        """Points as centroids (K, D), by scikit-learn's greedy k-means++."""
        from sklearn.cluster import kmeans_plusplus

        chosen, _ = kmeans_plusplus(points.numpy(), self.count, random_state=seed)
        return torch.from_numpy(chosen)

    def descend(self, points: Tensor, centroids: Tensor) -> tuple[Tensor, float]:
        """Lloyd's iterations from these centroids: where they end, and the last distortion."""
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        kmeans: Any = faiss.Kmeans(
            points.shape[1],
            self.count,
            niter=self.iterations,
            spherical=self.spherical,
            early_stop_threshold=self.tolerance,
            min_points_per_centroid=1,  # faiss would warn that they are few
            max_points_per_centroid=len(points),  # faiss would take a sample
        )
        kmeans.train(points.contiguous().numpy(), init_centroids=centroids.numpy())
        distortion = float(kmeans.obj[-1])
        return torch.from_numpy(kmeans.centroids), -distortion if self.spherical else distortion

    def nearest(self, points: Tensor, centroids: Tensor) -> Tensor:
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        metric = faiss.METRIC_INNER_PRODUCT if self.spherical else faiss.METRIC_L2
        _, near = faiss.knn(points.contiguous().numpy(), centroids.numpy(), 1, metric=metric)
        return torch.from_numpy(near[:, 0])
