"""Balanced clusters as labels: optimal transport on fixed features (SwAV, arXiv 2006.09882, eq. 3
to 5).

SwAV's prototypes are learned with its encoder; here the features stay as they are, and assignments
and prototypes take turns, as in k-means (SeLa, arXiv 1911.05371, section 3.2, with the update of
k-means).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from fw.core.errors import StageFailed
from fw.core.features.kmeans import MANY, Centroids
from fw.core.features.points import all_directions, check_clusters
from fw.core.files.stacked import scratch
from fw.core.job import Job
from fw.core.kinds import Annotator
from fw.core.machine.tables import all_finite
from fw.core.machine.team import ALONE, Team
from fw.core.randomness import seed_from
from fw.core.types import Annotation, ConditionSpec, Observations

START = 0.1
"""The first round's epsilon: so soft that even distant clusters exchange images."""

RANGE = 60.0
"""Scores that are lower than an image's best by more than this times epsilon count as equal:
exp(-60) is safe in fp32."""

AT_ONCE = {"cpu": 2**17, "cuda": 2**24}
"""Entries of a row block: it stays in the cache between its two uses."""


class Sinkhorn(Annotator):
    """Clusters of nearly equal size, found without labels by optimal transport (arXiv 2006.09882,
    eq. 3).

    It begins with k-means on the unit sphere. Each round assigns the whole set with equal shares
    for all prototypes, and moves each prototype to the mean of its images. `used` and `balance` in
    the report say how equal the clusters came out, and `kmeans` is the control. It takes 8 bytes
    per image and cluster: of a GPU's memory, or of the disk. The members of a team share them.
    """

    name: ClassVar[str] = "sinkhorn"
    version: ClassVar[int] = 2

    clusters: int = Field(
        30,
        ge=2,
        description="number of clusters, K; 30 suit the digits, and `fw clusters` helps to choose",
    )
    epsilon: float = Field(
        0.005, ge=0.001, le=START, description="entropy of the last assignment; lower is harder"
    )
    rounds: int = Field(
        20, ge=2, le=100_000, description="assignments; epsilon falls from 0.1 over them"
    )
    iterations: int = Field(100, ge=1, description="Sinkhorn-Knopp iterations per assignment")

    @property
    def least_images(self) -> int:
        return self.clusters

    @property
    def shares(self) -> bool:
        return self.clusters >= MANY

    def makes(self, classes: int) -> ConditionSpec:
        return ConditionSpec("class", self.clusters)

    def annotate(self, data: Observations, job: Job) -> Annotation:
        if data.features is None:
            raise StageFailed(
                "annotator sinkhorn needs features to cluster: give the arm an encoder"
            )
        team = job.team
        features = team.own(data.features)
        if team.any(not all_finite(features)):
            raise StageFailed("annotator sinkhorn: the encoder's features are not all finite")
        points = all_directions(features, job.folder)  # (n, D), those of this member
        check_clusters(points, self.clusters, "annotator sinkhorn", team)
        seed = seed_from(job.seed, "sinkhorn")
        points = points.to(job.device)
        start = Centroids(points, self.clusters, seed, spherical=True, team=team)
        prototypes = normalize(start.vectors, dim=1)
        falling = [
            START * (self.epsilon / START) ** (step / (self.rounds - 1))
            for step in range(self.rounds)
        ]
        scores, room = (scratch((len(points), self.clusters), points, job.folder) for _ in range(2))
        assigned = torch.zeros(0, dtype=torch.int64)
        for epsilon in job.track(falling, "sinkhorn", together=True):
            if len(assigned):
                prototypes = means(points, assigned, prototypes, room, team)
            torch.matmul(points, prototypes.T, out=scores)
            potentials = shares(scores, epsilon, self.iterations, room, team)
            assigned = assignments(scores, epsilon, potentials)
        return Annotation(
            ConditionSpec("class", self.clusters), team.whole(assigned, data.count).cpu()
        )


def shares(
    scores: Tensor,
    epsilon: float,
    iterations: int,
    room: Tensor | None = None,
    team: Team = ALONE,
) -> Tensor:
    """The logarithm of how much each prototype is to be preferred (K,), so that the codes of the
    cosines (N, K), softmax(scores / epsilon + shares), give every prototype about N / K images.
    Each member of a team has its rows of them.

    They are the potentials of eq. 5, by Sinkhorn-Knopp's iterations on vectors: an iteration reads
    the matrix once, row block by row block. A constant per image changes nothing in the solution,
    so each image's best score counts as 0. After 1, 8, 64, ... iterations the potentials move into
    the matrix, so that nothing overflows. `room` (N, K) is where it may lie.
    """
    count, clusters = scores.shape
    everyone = team.added([count])[0]
    matrix = torch.empty_like(scores) if room is None else room
    blocks = range(0, count, max(1, AT_ONCE[scores.device.type] // clusters))
    rows = [slice(start, start + blocks.step) for start in blocks]
    moved = scores.new_zeros(clusters)  # what has moved into the matrix
    factor = scores.new_ones(clusters)
    move = 0
    for iteration in range(iterations):
        if iteration == move:
            move = max(1, 8 * move)
            moved = moved + factor.log()
            factor = torch.ones_like(factor)
            for block in rows:
                exponents = logits(scores[block], epsilon).add_(moved)
                matrix[block] = exponents.sub_(exponents.amax(dim=1, keepdim=True)).exp_()
        given = torch.zeros_like(factor)
        for block in rows:
            part = matrix[block]
            given.addmv_(part.T, (part @ factor).reciprocal_())
        factor = (everyone / clusters) / team.total(given)
    return moved + factor.log()


def logits(scores: Tensor, epsilon: float) -> Tensor:
    """Cosines (N, K) over epsilon, each image's best as 0."""
    return (scores - scores.amax(dim=1, keepdim=True)).div_(epsilon).clamp_(min=-RANGE)


def assignments(scores: Tensor, epsilon: float, potentials: Tensor) -> Tensor:
    """The prototype with the largest share of each image: int64 (N,). The potentials are what
    `shares` returns."""
    few = scores.split(max(1, AT_ONCE[scores.device.type] // scores.shape[1]))
    return torch.cat([(logits(each, epsilon) + potentials).argmax(dim=1) for each in few])


def means(
    points: Tensor,
    assigned: Tensor,
    prototypes: Tensor,
    room: Tensor | None = None,
    team: Team = ALONE,
) -> Tensor:
    """Each cluster's mean direction (K, D). A cluster without images keeps its prototype.

    The codes are hard: with soft ones many prototypes collapse to one, and most are never the best
    of any image.
    """
    room = points.new_empty(len(points), len(prototypes)) if room is None else room
    codes = room.zero_().scatter_(1, assigned[:, None], 1.0)  # (N, K)
    empty = team.total(codes.sum(dim=0)) == 0  # (K,)
    sums = team.total(codes.T @ points)
    return torch.where(empty[:, None], prototypes, normalize(sums, dim=1))
