"""k-means on a GPU, where a million features and 10,000 centroids are usual: the matrix of all
distances is never made, and the host waits once for each iteration.

Each member of a team has its points and all centroids. Sums, counts and the distortion are added up
over the members, so that all of them end at the same centroids.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from fw.core.machine.team import ALONE, Team
from fw.core.randomness import generator

DISTANCES = 2**26
"""Distances that are in memory at once."""


@dataclass(frozen=True)
class Lloyd:
    """See `Centroids` for the settings."""

    count: int
    iterations: int
    spherical: bool
    tolerance: float
    team: Team = ALONE

    def plus_plus(self, points: Tensor, seed: int) -> Tensor:
        """Points as centroids (K, D), each drawn by its squared distance to those before it."""
        draws = generator(seed, "k-means++", device=points.device)
        chance = torch.rand(self.count, generator=draws, device=points.device, dtype=torch.float64)
        chosen = points[(chance[:1] * len(points)).long()]
        lengths = points.square().sum(dim=1)
        distances = torch.full_like(lengths, torch.inf)
        centroids = [chosen]
        for place in range(1, self.count):
            to_chosen = lengths - 2 * torch.mv(points, chosen[0]) + chosen.square().sum()
            distances = distances.minimum(to_chosen.clamp(min=0))
            heap = distances.double().cumsum(dim=0)
            drawn = torch.searchsorted(heap, chance[place : place + 1] * heap[-1])
            chosen = points[drawn.clamp(max=len(points) - 1)]
            centroids.append(chosen)
        return torch.cat(centroids)

    def descend(self, points: Tensor, centroids: Tensor) -> tuple[Tensor, float]:
        """Lloyd's iterations from these centroids: where they end, and the last distortion."""
        lengths = points.square().sum(dim=1)
        distortion = before = torch.inf
        for _ in range(self.iterations):
            near, distances = self._compared(points, centroids)
            distances = distances + lengths
            centroids = self._means(points, near, distances, centroids)
            distortion = float(self.team.total(distances.double().sum()))
            if distortion >= (1 - self.tolerance) * before:
                break
            before = distortion
        return centroids, distortion

    def nearest(self, points: Tensor, centroids: Tensor) -> Tensor:
        return self._compared(points, centroids)[0]

    def _compared(self, points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
        """Each point's nearest centroid (N,) and its squared distance to that, without the point's
        own squared length (N,)."""
        lengths = centroids.square().sum(dim=1)
        blocks = points.split(max(1, DISTANCES // self.count))
        found = [torch.addmm(lengths, block, centroids.T, alpha=-2).min(dim=1) for block in blocks]
        return torch.cat([each.indices for each in found]), torch.cat(
            [each.values for each in found]
        )

    def _means(self, points: Tensor, near: Tensor, distances: Tensor, centroids: Tensor) -> Tensor:
        """The mean of each centroid's points. One without points moves to a point that is far from
        its own centroid."""
        ones = torch.ones_like(distances)
        sizes = torch.zeros_like(centroids[:, 0]).index_add_(0, near, ones)
        sums = torch.zeros_like(centroids).index_add_(0, near, points)
        sizes, sums = self.team.total(sizes), self.team.total(sums)
        empty = sizes == 0
        far = self._farthest(points, distances)
        ranks = empty.cumsum(dim=0).sub(1).clamp(min=0)
        means = torch.where(empty[:, None], far[ranks], sums / sizes[:, None].clamp(min=1))
        return normalize(means, dim=1) if self.spherical else means

    def _farthest(self, points: Tensor, distances: Tensor) -> Tensor:
        """The K points of all members that are farthest from their centroids, in order (K, D)."""
        most = distances.topk(min(self.count, len(distances)))
        far = points[most.indices]
        if self.team.size == 1:
            return far
        lacking = self.count - len(far)  # a member may have fewer points than there are centroids
        apart = pad(most.values, (0, lacking), value=-torch.inf)
        everyone = self.team.size * self.count
        farthest = self.team.whole(apart, everyone).topk(self.count).indices
        return self.team.whole(pad(far, (0, 0, 0, lacking)), everyone)[farthest]
