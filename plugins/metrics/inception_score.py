"""The inception score: whether a classifier is sure of each sample, and of different classes for
different ones (Salimans et al., arXiv 1606.03498)."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any, ClassVar

from pydantic import Field, field_validator
from torch import Tensor

from fw.core.kinds import Encoder, Metric
from fw.plugins.metrics.features import checked
from fw.plugins.metrics.naming import key_in


class InceptionScore(Metric):
    """The inception score (arXiv 1606.03498): exp of the mean divergence of a sample's class
    probabilities from those of all samples; 1 at the least, the number of classes at the most.

    No real image is looked at, so it says nothing of what samples lack, and guidance inflates it.
    It needs logits as features: of Inception as published, or of fw's classifier with `space:
    {name: classifier, features: logits}`. Papers have 50,000 samples in ten sets.
    """

    version: ClassVar[int] = 2
    name: ClassVar[str] = "inception_score"

    space: Encoder = Field(
        default_factory=lambda: {"name": "inception", "features": "logits"},
        validate_default=True,
        description="encoder whose features are the logits of a classifier",
    )
    size: int = Field(
        5000,
        ge=2,
        description="samples in a set, whose mean is taken; at most as many as there are",
    )

    @field_validator("space")
    @classmethod
    def _has_classes(cls, space: Encoder) -> Encoder:
        if not space.gives_logits:
            raise ValueError(
                f"the inception score needs class probabilities, and the features of "
                f"'{space.name}' are none: take {{name: inception, features: logits}} or {{name: "
                "classifier, features: logits}"
            )
        return space

    @property
    def least_images(self) -> int:
        return 2

    @property
    def keys(self) -> Mapping[str, str]:
        return {self._key: "higher"}

    @property
    def _key(self) -> str:
        return key_in(self.space, "inception_score", home="inception")

    @property
    def by_position(self) -> frozenset[str]:
        return frozenset(self.keys)

    def real_images(self, train: int, samples: int) -> int:
        return 0

    def compare(
        self, prepared: object, fake: Tensor, wanted: Tensor | None = None
    ) -> dict[str, float]:
        samples = checked(fake, 2, "samples").double()
        size = min(self.size, len(samples))
        sets = samples[: len(samples) // size * size].split(size)
        return {self._key: fmean(map(score, sets))}

    def floor(
        self, prepared: Any, held_out: Tensor, count: int, wanted: Tensor | None = None
    ) -> Mapping[str, float]:
        """Sets of fewer images have lower scores, so there is none where fewer are held out."""
        if len(held_out) < min(self.size, count):
            return {}
        return super().floor(prepared, held_out, count)


def score(logits: Tensor) -> float:
    """Of logits (n, classes)."""
    log = logits.log_softmax(dim=1)
    known = log.exp()
    # xlogy-like: what has no probability in any sample adds nothing.
    shared = known.mean(dim=0).clamp(min=1e-300).log()
    return float((known * (log - shared)).sum(dim=1).mean().exp())
