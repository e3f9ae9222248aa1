"""Are samples copies of training images? No Frechet distance sees it: exact copies score best of
all.

The distance from each sample to its nearest training image, against the same for held-out real
images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from fw.core.errors import StageFailed
from fw.core.kinds import Encoder, Metric
from fw.core.types import Reference
from fw.plugins.metrics.features import ROWS, checked
from fw.plugins.metrics.naming import key_in


class Prepared(NamedTuple):
    """The training images, and how far held-out images lie from them."""

    train: Tensor
    typical: Tensor
    close: Tensor


class Memorisation(Metric):
    """Are samples copies? The distance to their nearest training image, against that of held-out
    images.

    `memorisation_ratio` is the ratio of the medians: copies have 0, new images 1.
    `memorisation_close` is the share of samples that lie closer than the closest 1 % of held-out
    images: new images have 0.01.
    """

    name: ClassVar[str] = "memorisation"

    space: Encoder = Field(
        "pca", validate_default=True, description="encoder in whose features distances are taken"
    )

    @property
    def least_images(self) -> int:
        return 2

    @property
    def keys(self) -> Mapping[str, str]:
        return {self._key("memorisation_ratio"): "higher", self._key("memorisation_close"): "lower"}

    def _key(self, score: str) -> str:
        return key_in(self.space, score, home="pca")

    def prepare(self, reference: Reference) -> Prepared:
        train = checked(reference.train, 2, "real images")
        held_out = nearest(checked(reference.held_out, 2, "held-out images"), train)
        typical = held_out.quantile(0.5)
        if not typical > 0:
            raise StageFailed(
                "most held-out images are in the training set, so copies cannot be told from new "
                "images"
            )
        return Prepared(train, typical, held_out.quantile(0.01))

    def compare(
        self, prepared: Prepared, fake: Tensor, wanted: Tensor | None = None
    ) -> dict[str, float]:
        samples = nearest(checked(fake, 2, "samples"), prepared.train)
        return {
            self._key("memorisation_ratio"): float(samples.quantile(0.5) / prepared.typical),
            self._key("memorisation_close"): float((samples < prepared.close).double().mean()),
        }


def nearest(features: Tensor, train: Tensor) -> Tensor:
    """The distance (n,) of each of the features (n, D) to its nearest one in train (N, D);
    exactly 0 for a copy."""
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cat(
        [torch.cdist(rows, train, compute_mode=exact).amin(dim=1) for rows in features.split(ROWS)]
    )
