"""A score whose bias falls as 1 / n, at another n and without end, and what new images would have.

FD-infinity is where the line through distances over 1 / n is at 0 (Chong and Forsyth, arXiv
1911.07023, section 3). Two sizes, n and n / 2, leave the least bias of the terms that fall faster;
and the halves of a few random splits, between which no image is lost, hardly more noise than the
distance itself has.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from fw.core.kinds.metric import sets_of
from fw.core.randomness import generator

Score = Callable[[Tensor], float]
"""Of features (n, D)."""

SPLITS = 4
"""Random splits in halves."""

LEAST = 4
"""So many images have halves of two."""

CHANCE = 0.25
"""The share of the score of a few hundred images by which their line's limit is off by chance and
by curvature: twice its standard deviation at 360 normal features in 64 dimensions, and less."""


@dataclass(frozen=True)
class Line:
    """A score of `count` features, and how it falls with 1 / n."""

    count: int
    score: float
    slope: float

    def at(self, count: float) -> float:
        return self.score + self.slope * (1 / count - 1 / self.count)

    @property
    def limit(self) -> float:
        """For n without end. It may be below 0, by chance, where no score is."""
        return self.at(math.inf)


def line(features: Tensor, score: Score) -> Line:
    """Through the score of features (n, D), and the mean of their halves'."""
    count = len(features)
    half = count // 2
    halves = []
    for split in range(SPLITS):
        order = torch.randperm(count, generator=generator("halves", split)).to(features.device)
        halves += [score(features[rows]) for rows in (order[:half], order[half : 2 * half])]
    whole = score(features)
    return Line(count, whole, (fmean(halves) - whole) / (1 / half - 1 / count))


@dataclass(frozen=True)
class NewImages:
    """What new real images would score, by held-out ones: their line, and by how much it is too
    low.

    Held-out sets often have each class as often as the training set has it, and images that are
    drawn have not. Nor have halves of the held-out images, so the line to that set is too steep,
    and its limit too low. But where training and held-out images differ by chance alone, their
    score has a term b / N of the former and b / M of the latter. So its limit is the share M / (M +
    N) of the score, and that of images that are truly further away is higher. A line that ends
    below this, by more than chance, is lifted to it.
    """

    line: Line
    lift: float

    @staticmethod
    def measured(held_out: Tensor, train: int, score: Score) -> NewImages:
        """By held-out images (M, D), and the number of training images that they are scored
        against."""
        through = line(held_out, score)
        term = through.score * len(held_out) / (len(held_out) + train)
        lift = term - through.limit
        return NewImages(through, lift if lift > CHANCE * through.score else 0.0)

    @property
    def limit(self) -> float:
        return self.line.limit + self.lift

    def at(self, count: int, held_out: Tensor, score: Score) -> float:
        """The score of `count` new images: of sets of held-out ones, or by the line where there are
        no more."""
        if count >= self.line.count:
            return self.line.at(count) + self.lift
        sets = (rows.to(held_out.device) for rows in sets_of(count, len(held_out)))
        return fmean(score(held_out[rows]) for rows in sets) + self.lift
