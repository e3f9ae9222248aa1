"""The Frechet distance between features in any space but Inception's (arXiv 1706.08500, eq. 6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from pydantic import Field, field_validator
from torch import Tensor

from fw.core.kinds import Encoder, Metric
from fw.core.types import Reference
from fw.plugins.metrics.features import Scale, checked
from fw.plugins.shared.frechet import distance, gaussian


class Prepared(NamedTuple):
    """What real images are like."""

    scale: Scale
    real: dict[str, Any]
    """The Gaussian of their standardised features."""


class FD(Metric):
    """Frechet distance (arXiv 1706.08500) on standardised features of a space of one's choice."""

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

    def prepare(self, reference: Reference) -> Prepared:
        real = checked(reference.train, 2, "real images")
        scale = Scale.of(real)
        return Prepared(scale, gaussian(scale.standardised(real)))

    def compare(
        self, prepared: Prepared, fake: Tensor, wanted: Tensor | None = None
    ) -> dict[str, float]:
        samples = prepared.scale.standardised(checked(fake, 2, "samples"))
        return {f"fd_{self.space.name}": distance(prepared.real, gaussian(samples))}
