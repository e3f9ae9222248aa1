"""How much of the samples is real (precision, density) and how much of the real is sampled (recall,
coverage).

Precision and recall: Kynkaanniemi et al., arXiv 1904.06991, eq. 1 and 2. Density and coverage:
Naeem et al., arXiv 2002.09797, section 3. The balls around real images are measured once;
torch-fidelity, which does it again for each set of samples, is the oracle in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from fw.core.kinds import Encoder, Metric
from fw.core.randomness import some
from fw.core.types import Reference
from fw.plugins.metrics.features import ROWS, checked
from fw.plugins.metrics.naming import key_in

SCORES = ("precision", "recall", "density", "coverage")


class Prepared(NamedTuple):
    """Real images, and the radii (N,) of the balls around them."""

    real: Tensor
    narrow: Tensor
    """For precision."""
    wide: Tensor
    """For density and coverage."""


class PRDC(Metric):
    """Precision and recall (arXiv 1904.06991), density and coverage (arXiv 2002.09797): fidelity
    and diversity."""

    version: ClassVar[int] = 2
    name: ClassVar[str] = "prdc"

    space: Encoder = Field(
        "classifier", validate_default=True, description="encoder whose features are compared"
    )
    nearest_k: int = Field(
        3, ge=1, description="neighbours that span a ball, for precision and recall"
    )
    coverage_k: int = Field(5, ge=1, description="the same for density and coverage")
    real: int = Field(
        10_000, ge=2, description="at most so many training images, at random; ADM's are 10,000"
    )

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.real < self.least_images:
            asked = max(self.nearest_k, self.coverage_k)
            raise ValueError(
                f"{asked} neighbours need {self.least_images} images or more, and real is "
                f"{self.real}"
            )
        return self

    @property
    def least_images(self) -> int:
        return max(self.nearest_k, self.coverage_k) + 1

    @property
    def keys(self) -> Mapping[str, str]:
        return {self._key(score): "higher" for score in SCORES}

    def _key(self, score: str) -> str:
        return key_in(self.space, score, home="classifier")

    def prepare(self, reference: Reference) -> Prepared:
        real = checked(
            reference.train[some(len(reference.train), self.real, "prdc")],
            self.least_images,
            "real images",
        )
        return Prepared(real, *radii(real, self.nearest_k, self.coverage_k))

    def compare(
        self, prepared: Prepared, fake: Tensor, wanted: Tensor | None = None
    ) -> dict[str, float]:
        real, samples = prepared.real, checked(fake, self.least_images, "samples")
        [around_samples] = radii(samples, self.nearest_k)
        scores = {
            "precision": inside_any(samples, real, prepared.narrow),
            "recall": inside_any(real, samples, around_samples),
        }
        scores["density"], scores["coverage"] = density_and_coverage(
            real, prepared.wide, samples, self.coverage_k
        )
        return {self._key(score): scores[score] for score in SCORES}


def radii(points: Tensor, *neighbours: int) -> list[Tensor]:
    """For each k the distance (N,) of each of points (N, D) to its k-th neighbour."""
    found = [
        [apart.kthvalue(k + 1, dim=1).values for k in neighbours]  # the nearest is the point itself
        for apart in (distances(rows, points) for rows in points.split(ROWS))
    ]
    return [torch.cat(each) for each in zip(*found, strict=True)]


def inside_any(points: Tensor, centres: Tensor, radius: Tensor) -> float:
    """The share of points (n, D) in a closed ball around any of the centres (N, D), of radius
    (N,)."""
    inside = [
        (distances(rows, centres) <= radius).any(dim=1).float() for rows in points.split(ROWS)
    ]
    return torch.cat(inside).mean().item()


def distances(points: Tensor, others: Tensor) -> Tensor:
    """Between points (n, D) and others (N, D), (n, N)."""
    return torch.cat([torch.cdist(points, rows) for rows in others.split(ROWS)], dim=1)


def density_and_coverage(real: Tensor, radius: Tensor, fake: Tensor, k: int) -> tuple[float, float]:
    """Of real features (N, D) and samples (M, D), with the closed ball around each real one up to
    its k-th neighbour.

    Density is the number of balls that a sample lies in, over k; coverage the share of balls with a
    sample inside.
    """
    balls = torch.zeros((), dtype=torch.float64, device=real.device)
    covered = torch.zeros((), dtype=torch.float64, device=real.device)
    for rows, reach in zip(real.split(ROWS), radius.split(ROWS), strict=True):
        inside = torch.cdist(rows, fake) <= reach[:, None]  # (R, M)
        balls += inside.sum()
        covered += inside.any(dim=1).sum()
    return float(balls / (k * len(fake))), float(covered / len(real))
