"""Clusters as labels: k-means on the training images' features, as in self-guidance (arXiv
2210.06462)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from fw.core.errors import StageFailed
from fw.core.features.kmeans import MANY, Centroids
from fw.core.features.points import all_directions, check_clusters, check_range
from fw.core.job import Job
from fw.core.kinds import Annotator
from fw.core.machine.tables import all_finite, near
from fw.core.randomness import seed_from
from fw.core.types import Annotation, ConditionSpec, Observations
from fw.registry import Neutral


class KMeans(Annotator):
    """The k-means cluster of each image, found without labels (arXiv 2210.06462, section 3.2)."""

    name: ClassVar[str] = "kmeans"
    version: ClassVar[int] = 2

    clusters: int = Field(
        30,
        ge=2,
        description="number of clusters, K; 30 suit the digits, and `fw clusters` helps to choose",
    )
    nredo: int = Field(
        1,
        ge=1,
        le=1_000_000,
        description="starts by k-means++; the one with the smallest distortion is kept",
    )
    iterations: int = Field(25, ge=1, le=1_000_000, description="Lloyd's iterations, at most")
    tolerance: Annotated[float, Neutral(3e-4)] = Field(
        3e-4,
        ge=0,
        lt=1,
        description="iterations end where the distortion falls by less than this share; 0 goes on "
        "until it does not fall",
    )
    spherical: bool = Field(
        False, description="keep the centroids on the unit sphere and compare by cosine"
    )
    normalise: bool = Field(True, description="scale each feature vector to length 1 first")

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
            raise StageFailed("annotator kmeans needs features to cluster: give the arm an encoder")
        count, team = data.count, job.team
        features = team.own(data.features).float().cpu()
        if team.any(not all_finite(features)):
            raise StageFailed("annotator kmeans: the encoder's features are not all finite")
        if self.normalise:
            features = all_directions(features, job.folder)
        check_clusters(features, self.clusters, "annotator kmeans", team)
        check_range(features, "annotator kmeans", team)
        # What a team exchanges lies on its devices, each of which has a share of the rows.
        points = near(features, job.device) if team.size == 1 else features.to(job.device)
        centroids = Centroids(
            points,
            self.clusters,
            seed_from(job.seed, "kmeans"),
            self.iterations,
            self.nredo,
            self.spherical,
            self.tolerance,
            team,
        )
        assigned = team.whole(centroids.nearest(points), count).cpu()
        if empty := self.clusters - len(assigned.unique()):
            job.warn(f"annotator kmeans: {empty} of {self.clusters} clusters have no image")
        return Annotation(ConditionSpec("class", self.clusters), assigned)
