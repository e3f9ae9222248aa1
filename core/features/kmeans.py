"""k-means by faiss: Lloyd's iterations over all points, on as many threads as torch has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Centroids:
    """`count` centroids of points (N, D) on the CPU, which must be finite and safe to square."""

    def __init__(
        self,
        points: Tensor,
        count: int,
        seed: int,
        iterations: int = 25,
        restarts: int = 1,
        spherical: bool = False,
    ):
        """The restart with the smallest distortion is kept.

        `spherical` centroids stay on the unit sphere, and points are compared by cosine.
        """
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        self.kmeans: Any = faiss.Kmeans(
            points.shape[1],
            count,
            niter=iterations,
            nredo=restarts,
            spherical=spherical,
            seed=seed % 2**31,
            min_points_per_centroid=1,  # faiss would warn that they are few
            max_points_per_centroid=len(points),  # faiss would take a sample
        )
        self.kmeans.train(points.contiguous().numpy())

    @property
    def vectors(self) -> Tensor:
        """The centroids (K, D)."""
        return torch.from_numpy(self.kmeans.centroids)

    def nearest(self, points: Tensor) -> Tensor:
        """The number of the centroid that is nearest to each point: int64 (N,)."""
        _, nearest = self.kmeans.assign(points.contiguous().numpy())
        return torch.from_numpy(nearest)
