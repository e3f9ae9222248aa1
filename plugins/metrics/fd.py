"""The Frechet distance between features in any space but Inception's (arXiv 1706.08500, eq. 6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field, field_validator
from torch import Tensor

from fw.core.errors import StageFailed
from fw.core.kinds import Encoder, Metric
from fw.core.types import Reference
from fw.plugins.metrics.features import INDISTINCT, checked
from fw.plugins.metrics.frechet import distance, moments_of_real


class FD(Metric):
    """Frechet distance (arXiv 1706.08500) on standardised features of a space of one's choice.

    One scale for all dimensions makes distances in different spaces comparable in size: the mean
    variance of real images' features, by which a squared distance is divided.
    """

    version: ClassVar[int] = 2
    on_device: ClassVar[bool] = True
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
    def least_images(self) -> int:
        return 2

    @property
    def keys(self) -> Mapping[str, str]:
        return {f"fd_{self.space.name}": "lower"}

    def measure(self, reference: Reference) -> dict[str, Tensor]:
        measured = moments_of_real(checked(reference.train, 2, "real images"))
        if not measured["trace"] > 0:
            raise StageFailed(INDISTINCT)
        return measured

    def prepare(self, reference: Reference) -> Mapping[str, Tensor]:
        return self.measured(reference)

    def compare(
        self, prepared: Mapping[str, Tensor], fake: Tensor, wanted: Tensor | None = None
    ) -> dict[str, float]:
        variance = float(prepared["trace"]) / len(prepared["mean"])
        apart = distance(prepared, checked(fake, 2, "samples"))
        return {f"fd_{self.space.name}": apart / variance}
