"""The weighted vote of the nearest neighbours (Wu et al., arXiv 1805.01978, section 3.4), by
lightly.

k = 20 and T = 0.07 are what DINO reports (arXiv 2104.14294). Lightly's own defaults are 200 and
0.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from fw.core.errors import StageFailed
from fw.core.features.points import all_directions
from fw.core.job import Job
from fw.core.kinds import FeatureProbe
from fw.core.types import Examples
from fw.plugins.probes.labels import accuracy, labels_of

ROWS = 500
"""Images whose neighbours are looked for at once."""


class NearestNeighbours(FeatureProbe):
    """Accuracy of the vote of an image's k nearest training images, weighted by exp(cosine / T),
    as DINO reports it (arXiv 2104.14294)."""

    name: ClassVar[str] = "knn"

    k: int = Field(20, ge=1, description="neighbours that vote")
    temperature: float = Field(
        0.07, gt=0.01, le=100, description="T; lower gives the nearest more weight"
    )

    @property
    def least_images(self) -> int:
        return self.k

    @property
    def _key(self) -> str:
        return f"knn{self.k}_t{repr(self.temperature).removeprefix('0.')}_{self.protocol}"

    @property
    def keys(self) -> Mapping[str, str]:
        return {self._key: "higher"}

    def score(self, train: Examples, test: Examples, job: Job) -> dict[str, float]:
        from lightly.utils.benchmarking import knn_predict

        if self.k > len(train):
            raise StageFailed(
                f"probe knn: {self.k} neighbours need as many training images, and there are "
                f"{len(train)}"
            )
        bank = all_directions(train.features, job.folder).T  # (D, N)
        labels, batches = labels_of(train), all_directions(test.features, job.folder).split(ROWS)
        found = [
            knn_predict(batch, bank, labels, train.classes, knn_k=self.k, knn_t=self.temperature)[
                :, 0
            ]
            for batch in job.track(batches, "neighbours")
        ]
        return {self._key: accuracy(found, test)}
