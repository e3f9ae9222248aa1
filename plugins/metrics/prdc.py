"""How much of the samples is real (precision, density) and how much of the real is sampled (recall, coverage).

Precision and recall: Kynkaanniemi et al., arXiv 1904.06991, computed by torch-fidelity. Density and coverage: Naeem et
al., arXiv 2002.09797, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from fw.core.kinds import Encoder, Metric
from fw.core.types import Reference
from fw.plugins.metrics.features import ROWS, checked
from fw.plugins.metrics.naming import key_in

SCORES = ("precision", "recall", "density", "coverage")


class PRDC(Metric):
    """Precision and recall (arXiv 1904.06991), density and coverage (arXiv 2002.09797): fidelity and diversity."""

    name: ClassVar[str] = "prdc"

    space: Encoder = Field("classifier", validate_default=True, description="encoder whose features are compared")
    nearest_k: int = Field(3, ge=1, description="neighbours that span a ball, for precision and recall")
    coverage_k: int = Field(5, ge=1, description="the same for density and coverage")
    real: int = Field(10_000, ge=2, description="at most so many training images; ADM's convention is 10,000")

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.real < self.least_images:
            asked = max(self.nearest_k, self.coverage_k)
            raise ValueError(f"{asked} neighbours need {self.least_images} images or more, and real is {self.real}")
        return self

    @property
    def least_images(self) -> int:
        return max(self.nearest_k, self.coverage_k) + 1

    @property
    def keys(self) -> Mapping[str, str]:
        return {self._key(score): "higher" for score in SCORES}

    def _key(self, score: str) -> str:
        return key_in(self.space, score, home="classifier")

    def compare(self, reference: Reference, fake: Tensor) -> dict[str, float]:
        from torch_fidelity.metric_prc import prc_features_to_metric

        train = checked(reference.train[: self.real], self.least_images, "real images")
        samples = checked(fake, self.least_images, "samples")
        scores = prc_features_to_metric(
            samples, train, prc_neighborhood=self.nearest_k, prc_batch_size=ROWS, save_cpu_ram=True, verbose=False
        )
        scores["density"], scores["coverage"] = density_and_coverage(train, samples, self.coverage_k)
        return {self._key(score): scores[score] for score in SCORES}


def density_and_coverage(real: Tensor, fake: Tensor, k: int) -> tuple[float, float]:
    """Of real features (N, D) and samples (M, D), with the closed ball around each real one up to its k-th neighbour.

    Density is the number of balls that a sample lies in, over k; coverage the share of balls with a sample inside.
    """
    balls = torch.zeros((), dtype=torch.float64, device=real.device)
    covered = torch.zeros((), dtype=torch.float64, device=real.device)
    for rows in real.split(ROWS):
        radius = torch.cdist(rows, real).kthvalue(k + 1, dim=1).values  # (R,); the nearest is the point itself
        inside = torch.cdist(rows, fake) <= radius[:, None]  # (R, M)
        balls += inside.sum()
        covered += inside.any(dim=1).sum()
    return float(balls / (k * len(fake))), float(covered / len(real))
