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
from fw.plugins.metrics.features import checked
from fw.plugins.metrics.naming import key_in
from fw.plugins.metrics.neighbours import in_balls, radii

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

    version: ClassVar[int] = 3
    on_device: ClassVar[bool] = True
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

    def measure(self, reference: Reference) -> dict[str, Tensor]:
        narrow, wide = radii(self.chosen(reference), self.nearest_k, self.coverage_k)
        return {"narrow": narrow, "wide": wide}

    def prepare(self, reference: Reference) -> Prepared:
        return Prepared(self.chosen(reference), **self.measured(reference))

    def chosen(self, reference: Reference) -> Tensor:
        train = reference.train
        some_of_them = some(len(train), self.real, "prdc").to(train.device)
        return checked(train[some_of_them], self.least_images, "real images")

    def compare(
        self, prepared: Prepared, fake: Tensor, wanted: Tensor | None = None
    ) -> dict[str, float]:
        real, samples = prepared.real, checked(fake, self.least_images, "samples")
        [around_samples] = radii(samples, self.nearest_k)
        scores = {
            "precision": share_in_any(samples, real, prepared.narrow),
            "recall": share_in_any(real, samples, around_samples),
        }
        scores["density"], scores["coverage"] = density_and_coverage(
            real, prepared.wide, samples, self.coverage_k
        )
        return {self._key(score): scores[score] for score in SCORES}

    def floor(
        self, prepared: Prepared, held_out: Tensor, count: int, wanted: Tensor | None = None
    ) -> Mapping[str, float]:
        """Fewer images than samples have another recall and coverage, but not another precision and
        density."""
        floor = super().floor(prepared, held_out, count)
        grown = {self._key("recall"), self._key("coverage")} if len(held_out) < count else set()
        return {key: value for key, value in floor.items() if key not in grown}

    def real_images(self, train: int, samples: int) -> int:
        return min(train, self.real)


def share_in_any(points: Tensor, centres: Tensor, radius: Tensor) -> float:
    """The share of points (n, D) in a closed ball around any of the centres (N, D), of radius
    (N,)."""
    inside = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    for hits in in_balls(points, centres, radius):
        inside[hits.points] = True
    return inside.double().mean().item()


def density_and_coverage(real: Tensor, radius: Tensor, fake: Tensor, k: int) -> tuple[float, float]:
    """Of real features (N, D) and samples (M, D), with the closed ball around each real one up to
    its k-th neighbour.

    Density is the number of balls that a sample lies in, over k; coverage the share of balls with a
    sample inside.
    """
    count = torch.zeros(len(real), dtype=torch.long, device=real.device)
    for hits in in_balls(fake, real, radius):
        count += hits.balls.bincount(minlength=len(real))
    return int(count.sum()) / (k * len(fake)), float((count > 0).double().mean())
