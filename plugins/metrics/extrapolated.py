"""A score whose bias falls as 1 / n, at another n and without end: FD-infinity is where the line
through distances over 1 / n is at 0 (Chong and Forsyth, arXiv 1911.07023, section 3).

Two sizes, n and n / 2, leave the least bias of the terms that fall faster; and the halves of a few
random splits, between which no image is lost, hardly more noise than the distance itself has.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from fw.core.randomness import generator

SPLITS = 4
"""Random splits in halves."""

LEAST = 4
"""So many images have halves of two."""


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


def line(features: Tensor, score: Callable[[Tensor], float]) -> Line:
    """Through the score of features (n, D), and the mean of their halves'."""
    count = len(features)
    half = count // 2
    halves = []
    for split in range(SPLITS):
        order = torch.randperm(count, generator=generator("halves", split)).to(features.device)
        halves += [score(features[rows]) for rows in (order[:half], order[half : 2 * half])]
    whole = score(features)
    return Line(count, whole, (fmean(halves) - whole) / (1 / half - 1 / count))
