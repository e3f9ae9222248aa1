"""What a Frechet distance is in any space: the distance, its limit, and what it is of real
images'."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import ClassVar

import torch
from torch import Tensor

from fw.core.kinds import Metric
from fw.core.kinds.floor import FLOORS
from fw.core.types import Reference
from fw.plugins.metrics.extrapolated import LEAST, NewImages, line
from fw.plugins.metrics.features import checked
from fw.plugins.metrics.frechet import bias, distance, moments_of_real


@dataclass(frozen=True)
class Prepared:
    """What samples are compared with: the moments of training images, held-out images (M, D), what
    distance new ones would have, and by what squared distances are divided."""

    moments: Mapping[str, Tensor]
    held_out: Tensor
    new: NewImages
    unit: float
    floors: dict[int, float] = field(default_factory=dict)
    """Those that were asked for, by count: of more held-out images than that they take long."""

    def distance(self, features: Tensor) -> float:
        return distance(self.moments, features) / self.unit

    def floor(self, count: int) -> float:
        """The distance that `count` new images would have."""
        if count not in self.floors:
            self.floors[count] = self.new.at(count, self.held_out, self.distance)
        return self.floors[count]

    def ratio(self, features: Tensor, apart: float) -> float:
        """Of features and their distance: that over the distance of as many new images. Where fewer
        are held out, the features are compared in sets of so many, too."""
        count = min(len(features), len(self.held_out))
        if count < len(features):
            sets = features[: len(features) // count * count].split(count)[:FLOORS]
            apart = fmean(map(self.distance, sets))
        floor = self.floor(count)
        if floor > 0:
            return apart / floor
        return math.inf if apart > 0 else 1.0


class FrechetMetric(Metric):
    """A Frechet distance to the training images: of n samples, which is too large by about b / n,
    for n without end, and over that of as many new images.

    A subclass says what its distance is called, and by what it is divided.
    """

    on_device: ClassVar[bool] = True
    extrapolates: ClassVar[bool] = True

    @property
    def least_images(self) -> int:
        return LEAST

    @property
    @abstractmethod
    def called(self) -> tuple[str, str, str]:
        """The keys of the distance, its limit and its ratio."""

    def unit(self, moments: Mapping[str, Tensor]) -> float:
        """What a squared distance is divided by."""
        return 1.0

    @property
    def keys(self) -> Mapping[str, str]:
        return dict.fromkeys(self.called, "lower")

    @property
    def in_figures(self) -> tuple[str, ...]:
        return self.called[:1]

    @property
    def by_position(self) -> frozenset[str]:
        return frozenset(self.called[1:])

    def measure(self, reference: Reference) -> dict[str, Tensor]:
        moments = moments_of_real(checked(reference.train, 2, "real images"))
        unit = self.unit(moments)
        held_out = checked(reference.held_out, LEAST, "held-out images")
        measured = [distance(moments, held_out) / unit, bias(reference.train) / unit]
        return {**moments, "new": torch.tensor(measured, dtype=torch.float64)}

    def prepare(self, reference: Reference) -> Prepared:
        moments, held_out = dict(self.measured(reference)), reference.held_out
        score, slope = moments.pop("new").tolist()
        new = NewImages.by(len(held_out), score, len(reference.train), slope)
        return Prepared(moments, held_out, new, self.unit(moments))

    def compare(
        self, prepared: Prepared, fake: Tensor, wanted: Tensor | None = None
    ) -> dict[str, float]:
        samples = checked(fake, LEAST, "samples")
        through = line(samples, prepared.distance)
        apart, limit, ratio = self.called
        return {
            apart: through.score,
            limit: through.limit,
            ratio: prepared.ratio(samples, through.score),
        }

    def floor(
        self, prepared: Prepared, held_out: Tensor, count: int, wanted: Tensor | None = None
    ) -> dict[str, float]:
        """Where fewer are held out than `count`, the distance is by the line through theirs; the
        ratio is 1 by its definition."""
        apart, limit, ratio = self.called
        return {apart: prepared.floor(count), limit: prepared.new.limit, ratio: 1.0}
