"""FID and nothing else: the Frechet distance on Inception-v3's pool3 features.

Heusel et al., arXiv 1706.08500, eq. 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator
from torch import Tensor

from fw.core.kinds import Encoder, Metric
from fw.core.types import Reference
from fw.plugins.metrics.features import checked
from fw.plugins.metrics.frechet import distance, moments_of_real


class FID(Metric):
    """Frechet inception distance (arXiv 1706.08500). Papers use 50 000 samples; fewer give
    larger values."""

    version: ClassVar[int] = 2
    on_device: ClassVar[bool] = True
    name: ClassVar[str] = "fid"

    space: Encoder = Field("inception", validate_default=True, description="always inception")
    weights: Path | None = Field(
        None,
        exclude=True,
        description="Inception's weights file: short for `space: {name: inception, weights: ...}`",
    )

    @model_validator(mode="before")
    @classmethod
    def _pass_weights_on(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or values.get("weights") is None:
            return values
        if "space" in values:
            raise ValueError(
                "give Inception's weights either as `weights` or in `space`, not in both"
            )
        rest = {key: value for key, value in values.items() if key != "weights"}
        return {**rest, "space": {"name": "inception", "weights": values["weights"]}}

    @field_validator("space")
    @classmethod
    def _nothing_but_inception(cls, space: Encoder) -> Encoder:
        if space.name != "inception":
            raise ValueError(
                f"FID is measured in Inception's space: for the space '{space.name}' use the "
                "metric 'fd'"
            )
        return space

    @property
    def least_images(self) -> int:
        return 2

    @property
    def keys(self) -> Mapping[str, str]:
        return {"fid": "lower"}

    def measure(self, reference: Reference) -> dict[str, Tensor]:
        return moments_of_real(checked(reference.train, 2, "real images"))

    def prepare(self, reference: Reference) -> Mapping[str, Tensor]:
        return self.measured(reference)

    def compare(
        self, prepared: Mapping[str, Tensor], fake: Tensor, wanted: Tensor | None = None
    ) -> dict[str, float]:
        return {"fid": distance(prepared, checked(fake, 2, "samples"))}
