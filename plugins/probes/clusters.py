"""Whether clusters of the features are classes: k-means by faiss, fitted without labels, scored
by them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from fw.core.errors import StageFailed
from fw.core.features.kmeans import Centroids
from fw.core.features.points import all_directions, different
from fw.core.features.quality import cluster_quality
from fw.core.job import Job
from fw.core.kinds import FeatureProbe
from fw.core.randomness import seed_from
from fw.core.types import Examples
from fw.plugins.probes.labels import accuracy, labels_of
from fw.plugins.probes.matching import named_by

RESTARTS = 5
ITERATIONS = 25
SCORES = ("nmi", "ari", "purity", "accuracy")


class Clusters(FeatureProbe):
    """Agreement of k-means clusters of the features with the labels: NMI, ARI, purity and accuracy
    of held-out images.

    The clusters are those of the training images' features of length 1. Purity and NMI rise with
    the number of clusters. For the accuracy they are named as by `recognise`, whose score it can
    stand beside.
    """

    version: ClassVar[int] = 3
    name: ClassVar[str] = "clusters"

    clusters: int = Field(
        10, ge=2, description="number of clusters, K; fewer than classes cannot name them all"
    )

    @property
    def least_images(self) -> int:
        return self.clusters

    def caution(self, images: int, classes: int) -> str | None:
        if self.clusters >= classes:
            return None
        return (
            f"probe 'clusters': {self.clusters} clusters name no more than {self.clusters} of the "
            f"{classes} classes, and the accuracy is that of these"
        )

    @property
    def keys(self) -> Mapping[str, str]:
        return {self._key(score): "higher" for score in SCORES}

    def _key(self, score: str) -> str:
        return f"kmeans{self.clusters}_{score}_{self.protocol}"

    def score(self, train: Examples, test: Examples, job: Job) -> dict[str, float]:
        if self.clusters > len(train):
            told = (
                f"{self.clusters} clusters need as many training images, and there are {len(train)}"
            )
            raise StageFailed(f"probe clusters: {told}")
        points, held_out = (all_directions(data.features, job.folder) for data in (train, test))
        if (count := different(points, self.clusters)) < self.clusters:
            job.warn(
                f"probe clusters: of {self.clusters} clusters some are empty, for only {count} "
                "features differ"
            )
        seed = seed_from(job.seed, "clusters")
        centroids = Centroids(points, self.clusters, seed, ITERATIONS, RESTARTS)
        found = centroids.nearest(held_out)
        names, _ = named_by(centroids.nearest(points), self.clusters, train)
        quality = cluster_quality(found, labels_of(test)) | {
            "accuracy": accuracy(names[found], test)
        }
        return {self._key(score): quality[score] for score in SCORES}
