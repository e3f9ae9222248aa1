"""The Frechet distance between features in any space but Inception's (arXiv 1706.08500, eq. 6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field, field_validator
from torch import Tensor

from fw.core.kinds import Encoder, Metric
from fw.core.types import Reference
from fw.plugins.metrics.features import checked, standardised
from fw.plugins.shared.frechet import frechet


class FD(Metric):
    """Frechet distance (arXiv 1706.08500) on standardised features of a space of one's choice."""

    name: ClassVar[str] = "fd"

    space: Encoder = Field("classifier", validate_default=True, description="encoder whose features are compared")

    @field_validator("space")
    @classmethod
    def _inception_has_its_own_name(cls, space: Encoder) -> Encoder:
        if space.name == "inception":
            raise ValueError("the Frechet distance in Inception's space is FID: use the metric 'fid'")
        return space

    @property
    def least_images(self) -> int:
        return 2

    @property
    def keys(self) -> Mapping[str, str]:
        return {f"fd_{self.space.name}": "lower"}

    def compare(self, reference: Reference, fake: Tensor) -> dict[str, float]:
        train, samples = standardised(checked(reference.train, 2, "real images"), checked(fake, 2, "samples"))
        return {f"fd_{self.space.name}": frechet(train, samples)}
