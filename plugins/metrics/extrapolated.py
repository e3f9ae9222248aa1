"""A score whose bias falls as 1 / n, at another n and without end, and what new images would have.

FD-infinity is where the line through distances over 1 / n is at 0 (Chong and Forsyth, arXiv
1911.07023, section 3). Two sizes, n and n / 2, leave the least bias of the terms that fall faster;
and the halves of a few random splits, between which no image is lost, hardly more noise than the
distance itself has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from fw.core.kinds.floor import sets_of
from fw.core.randomness import generator

Score = Callable[[Tensor], float]
"""Of features (n, D)."""

SPLITS = 2
"""Random splits in halves, for a line: more leave hardly less noise."""

DRAWS = 8
"""Such splits for a slope, whose halves differ more, as two draws of few classes do."""

LEAST = 4
"""So many images have halves of two."""

CHANCE = 0.25
"""The share of the score of a few hundred images by which their line's limit is off by chance:
about twice its standard deviation at 360 normal features in 16 dimensions."""


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
    count, whole = len(features), score(features)
    of_halves = fmean(map(score, halves(features, SPLITS)))
    return Line(count, whole, (of_halves - whole) / (1 / (count // 2) - 1 / count))


@dataclass(frozen=True)
class NewImages:
    """What new real images would score, by held-out ones: a line through their score with the slope
    that drawn images have, and by how much it is too low.

    Held-out sets often have each class as often as the training set has it, and images that are
    drawn have not: they have a larger term b / n, and so a line of their slope through the score
    of the held-out ones ends too low. But where training and held-out images differ by chance
    alone, their score has a term b / N of the former and b / M of the latter. So its limit is the
    share M / (M + N) of the score, and that of images that are truly further away is higher. A line
    that ends below this, by more than chance, is lifted to it.
    """

    line: Line
    lift: float

    @staticmethod
    def by(held_out: int, score: float, train: int, slope: float) -> NewImages:
        """By the score of all held-out images, against so many training images, and the b of new
        ones."""
        through = Line(held_out, score, slope)
        lift = score * held_out / (held_out + train) - through.limit
        return NewImages(through, lift if lift > CHANCE * score else 0.0)

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


def slope(features: Tensor, score: Callable[[Tensor, Tensor], float]) -> float:
    """The b of images drawn from features (N, D): their halves' scores against all of them, which
    are b (2 / N - 1 / N) on average."""
    return fmean(score(features, half) for half in halves(features, DRAWS)) * len(features)


def halves(features: Tensor, splits: int) -> Iterator[Tensor]:
    """Those of random splits of features (n, D); of an odd number one is left out."""
    half = len(features) // 2
    for split in range(splits):
        order = torch.randperm(len(features), generator=generator("halves", split))
        order = order.to(features.device)
        yield features[order[:half]]
        yield features[order[half : 2 * half]]
