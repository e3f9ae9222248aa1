"""FD-DINOv2: the Frechet distance that follows people's judgement better than FID (Stein et al.,
arXiv 2306.04675)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, field_validator

from fw.core.kinds import Encoder
from fw.plugins.metrics.frechet_metric import FrechetMetric

LARGE = "vit_large_patch14_dinov2.lvd142m"
PUBLISHED = {"name": "dinov2", "model": LARGE, "resolution": 224}


class FDDINOv2(FrechetMetric):
    """FD-DINOv2 as published (arXiv 2306.04675): class tokens of ViT-L/14 at 224 pixels, not
    standardised, so values are hundreds; 50 000 samples by convention.

    `space: {name: dinov2, weights: FOLDER, resolution: 224}` says where the weights are; a folder
    has to hold the large model. Loaders resize and interpolate a little differently, so compare
    with values of the same one. The metric `fd` in a `dinov2` space, of any of its models, is
    another number: it is standardised, and its key is `fd_dinov2`.
    """

    name: ClassVar[str] = "fd_dinov2"
    convention: ClassVar[int | None] = 50_000

    space: Encoder = Field(
        default_factory=lambda: PUBLISHED,
        validate_default=True,
        description="DINOv2, its large model at 224 pixels",
    )

    @field_validator("space")
    @classmethod
    def _as_published(cls, space: Encoder) -> Encoder:
        fields: dict[str, Any] = space.spec()
        if (
            space.name != "dinov2"
            or fields["resolution"] != 224
            or fields["embedding"] != "cls"
            or fields["model"] not in ((LARGE, None) if fields["weights"] else (LARGE,))
        ):
            raise ValueError(
                f"FD-DINOv2 is of class tokens of dinov2's {LARGE} at `resolution: 224`: for "
                "another space use the metric 'fd'"
            )
        return space

    @property
    def called(self) -> tuple[str, str, str]:
        return "fdd", "fdd_infinity", "fdd_ratio"
