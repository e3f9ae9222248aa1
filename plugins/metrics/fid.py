"""FID and nothing else: the Frechet distance on Inception-v3's pool3 features.

Heusel et al., arXiv 1706.08500, eq. 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from fw.core.kinds import Encoder
from fw.plugins.metrics.frechet_metric import FrechetMetric


class FID(FrechetMetric):
    """Frechet inception distance (arXiv 1706.08500). Papers use 50 000 samples; fewer give
    larger values.

    `fid_infinity` is what it would come to for samples without end (arXiv 1911.07023), `fid_ratio`
    the distance over that of as many held-out images (arXiv 2604.28190).
    """

    version: ClassVar[int] = 3
    name: ClassVar[str] = "fid"
    convention: ClassVar[int | None] = 50_000

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
        if space.gives_logits:
            raise ValueError("FID is measured on Inception's pool3 features, not on its logits")
        return space

    @property
    def called(self) -> tuple[str, str, str]:
        return "fid", "fid_infinity", "fid_ratio"
