"""Kernel inception distance: the unbiased squared MMD with the kernel (x.y / D + 1)^3.

Binkowski et al., Demystifying MMD GANs, arXiv 1801.01401. torch-fidelity computes it, over random
subsets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from pydantic import Field
from torch import Tensor

from fw.core.kinds import Encoder, Metric
from fw.core.types import Reference
from fw.plugins.metrics.features import Scale, checked
from fw.plugins.metrics.naming import key_in


class Prepared(NamedTuple):
    """What samples are compared with."""

    scale: Scale | None
    """None in Inception's own space."""
    real: Tensor


class KID(Metric):
    """Kernel inception distance (arXiv 1801.01401), mean over subsets; features of custom spaces
    are standardised."""

    name: ClassVar[str] = "kid"

    space: Encoder = Field(
        "classifier", validate_default=True, description="encoder whose features are compared"
    )
    subsets: int = Field(100, ge=1, description="random subsets to average over")
    subset_size: int = Field(
        1000, ge=2, description="features per subset; at most as many as there are"
    )

    @property
    def least_images(self) -> int:
        return 2

    @property
    def keys(self) -> Mapping[str, str]:
        return {self._key: "lower"}

    @property
    def _key(self) -> str:
        return key_in(self.space, "kid", home="inception")

    def prepare(self, reference: Reference) -> Prepared:
        real = checked(reference.train, 2, "real images").double()
        if self.space.name == "inception":
            return Prepared(None, real)
        scale = Scale.of(real)
        return Prepared(scale, scale.standardised(real))

    def compare(
        self, prepared: Prepared, fake: Tensor, wanted: Tensor | None = None
    ) -> dict[str, float]:
        from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

        samples, real = checked(fake, 2, "samples").double(), prepared.real
        if prepared.scale is not None:
            samples = prepared.scale.standardised(samples)
        scores = kid_features_to_metric(
            samples,
            real,
            kid_subsets=self.subsets,
            kid_subset_size=min(self.subset_size, len(real), len(samples)),
            verbose=False,
        )
        return {self._key: scores[KEY_METRIC_KID_MEAN]}
