"""What a Frechet distance is in any space: the distance, its limit, and what it is of real
images'."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

import torch
from torch import Tensor

from fw.core.kinds import Metric
from fw.core.kinds.metric import FLOORS, sets_of
from fw.core.types import Reference
from fw.plugins.metrics.extrapolated import LEAST, Line, line
from fw.plugins.metrics.features import checked
from fw.plugins.metrics.frechet import distance, moments_of_real


@dataclass(frozen=True)
class Prepared:
    """What samples are compared with: the moments of training images, held-out images (M, D), the
    line through the distances of these, and by what squared distances are divided."""

    moments: Mapping[str, Tensor]
    held_out: Tensor
    new: Line
    unit: float

    def distance(self, features: Tensor) -> float:
        return distance(self.moments, features) / self.unit

    def floor(self, count: int) -> float:
        """The distance that `count` new images would have."""
        if count >= self.new.count:
            return self.new.at(count)
        sets = (rows.to(self.held_out.device) for rows in sets_of(count, self.new.count))
        return fmean(self.distance(self.held_out[rows]) for rows in sets)

    def ratio(self, features: Tensor, apart: float) -> float:
        """Of features and their distance: that over the distance of as many held-out images. Where
        these are fewer, the features are compared in sets of so many, too."""
        count = min(len(features), self.new.count)
        if count < len(features):
            sets = features[: len(features) // count * count].split(count)[:FLOORS]
            apart = fmean(map(self.distance, sets))
        floor = self.floor(count)
        if floor > 0:
            return apart / floor
        return math.inf if apart > 0 else 1.0


class FrechetMetric(Metric):
    """A Frechet distance to the training images, of n samples (biased by about b / n), for n
    without end, and over that of held-out images.

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
    def by_position(self) -> frozenset[str]:
        return frozenset(self.called[1:])

    def measure(self, reference: Reference) -> dict[str, Tensor]:
        moments = moments_of_real(checked(reference.train, 2, "real images"))
        unit = self.unit(moments)
        held_out = checked(reference.held_out, LEAST, "held-out images")
        new = line(held_out, lambda features: distance(moments, features) / unit)
        return {**moments, "new": torch.tensor([new.score, new.slope], dtype=torch.float64)}

    def prepare(self, reference: Reference) -> Prepared:
        moments, held_out = dict(self.measured(reference)), reference.held_out
        new = Line(len(held_out), *moments.pop("new").tolist())
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
        """Where fewer are held out than `count`, the distance is that of the line through theirs;
        the ratio is of as many images as there are and 1 by its definition."""
        apart, limit, ratio = self.called
        return {apart: prepared.floor(count), limit: prepared.new.limit, ratio: 1.0}
