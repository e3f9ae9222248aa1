"""The Frechet distance between features in any space but Inception's (arXiv 1706.08500, eq. 6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field, field_validator
from torch import Tensor

from fw.core.errors import StageFailed
from fw.core.kinds import Encoder
from fw.plugins.metrics.features import INDISTINCT
from fw.plugins.metrics.frechet_metric import FrechetMetric


class FD(FrechetMetric):
    """Frechet distance (arXiv 1706.08500) on standardised features of a space of one's choice.

    One scale for all dimensions makes distances in different spaces comparable in size: the mean
    variance of real images' features, by which a squared distance is divided.

    `fd_SPACE` falls with the number of samples. `fd_infinity_SPACE` is what it would come to
    without end (arXiv 1911.07023), and may be below 0 by chance. `fd_ratio_SPACE` is the distance
    over that of as many held-out images (arXiv 2604.28190): new images have 1.
    """

    version: ClassVar[int] = 3
    name: ClassVar[str] = "fd"

    space: Encoder = Field(
        "classifier", validate_default=True, description="encoder whose features are compared"
    )

    @field_validator("space")
    @classmethod
    def _inception_has_its_own_name(cls, space: Encoder) -> Encoder:
        if space.name == "inception":
            raise ValueError(
                "the Frechet distance in Inception's space is FID: use the metric 'fid'"
            )
        return space

    @property
    def called(self) -> tuple[str, str, str]:
        space = self.space.name
        return f"fd_{space}", f"fd_infinity_{space}", f"fd_ratio_{space}"

    def unit(self, moments: Mapping[str, Tensor]) -> float:
        variance = float(moments["trace"]) / len(moments["mean"])
        if not variance > 0:
            raise StageFailed(INDISTINCT)
        return variance
