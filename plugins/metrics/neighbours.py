"""Who is near whom among features: what all exact distances would say, of which few are computed.

A product of matrices gives |a - b|^2 = |a|^2 + |b|^2 - 2 ab of all pairs at once, in single
precision and so with an error, whose limit is known (Higham, Accuracy and Stability of Numerical
Algorithms, 2002, section 3.1). Pairs that are further apart than matters by more than that are left
out. The few others are measured in double precision from their differences, so that copies, ties
and features far from zero come out as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

BLOCK = {"cpu": 2**21, "cuda": 2**27}
"""Pairs that are held at once."""

FEWEST = 16
"""Rows of a block, at least, however many columns it has."""

GROUPS, SIZES = 64, (64, 32, 16, 8)
"""A row is searched by the least of each group of columns. There are so many groups or more, of the
largest of these sizes, which processors take at once."""

FAR = 1e30
"""The squared distance of columns that fill the last group; the others' are 4 or less."""

EXACT = 2**20
"""Numbers in the features whose differences are taken at once."""

MOST = 1 / 8
"""Where more of a block's pairs than these matter, as of samples that are all the same, it is
quicker to measure all."""

ROUNDING = 2.0**-24
"""Of a number in single precision, relative to it."""

VANISHING = 1e-30
"""Squares below it may come out as 0 in single precision. The largest are scaled to 1."""


class Nearest(NamedTuple):
    """The distance of each feature (n,) to the nearest of others, and the number of that one."""

    distance: Tensor
    number: Tensor


def nearest(features: Tensor, others: Tensor, of_others: bool = False) -> Nearest:
    """For features (n, D) the nearest one in others (N, D), the first if there are several; the
    distance, float64, is exactly 0 for a copy.

    With `of_others` an equal one does not count: held-out images, which are scored for the floor,
    are not their own neighbours.
    """
    found = []
    for block in blocks(features, others):
        reach = block.reach(2 if of_others else 1)
        rows, columns = block.pairs_within(reach)
        apart = block.exact(rows, columns)
        if of_others:
            apart.masked_fill_(apart == 0, torch.inf)
        distance = block.per_row(torch.inf).scatter_reduce(0, rows, apart, "amin")
        are_least = apart == distance[rows]
        number = torch.full_like(distance, len(others), dtype=torch.long)
        number.scatter_reduce_(0, rows[are_least], columns[are_least], "amin")
        if of_others:
            # Where a row has several copies, what is nearest beside them may be out of reach.
            beyond = (distance * block.scan.scale).square() > reach
            apart = block.every_exact(beyond)
            apart.masked_fill_(apart == 0, torch.inf)
            distance[beyond], number[beyond] = apart.min(dim=1)
        found.append(Nearest(distance, number))
    return Nearest(
        torch.cat([each.distance for each in found]), torch.cat([each.number for each in found])
    )


def radii(points: Tensor, *neighbours: int) -> list[Tensor]:
    """For each k the distance (N,) of each of points (N, D) to its k-th neighbour, float64."""
    most = max(neighbours) + 1  # the nearest is the point itself
    found = []
    for block in blocks(points, points, most):
        rows, columns = block.pairs_within(block.reach(most))
        apart, order = block.exact(rows, columns).sort()
        by_row = rows[order].argsort(stable=True)
        counts = rows.bincount(minlength=block.count)
        nearest_of_row = counts.cumsum(0) - counts
        found.append([apart[by_row][nearest_of_row + k] for k in neighbours])
    return [torch.cat(each) for each in zip(*found, strict=True)]


class Hits(NamedTuple):
    """Points that lie in balls: for each such pair (H,), the numbers of the point and the ball."""

    points: Tensor
    balls: Tensor


def in_balls(points: Tensor, centres: Tensor, radius: Tensor) -> Iterator[Hits]:
    """Which of points (n, D) lie in which of the closed balls around centres (N, D), of radius
    (N,): some points after the others."""
    for block in blocks(points, centres, radius=radius):
        rows, columns, sure = block.pairs_in_balls()
        unsure = ~sure
        apart = block.exact(rows[unsure], columns[unsure])
        sure[unsure] = apart <= radius[columns[unsure]]
        yield Hits(block.start + rows[sure], columns[sure])


def blocks(
    features: Tensor, others: Tensor, most: int = 2, radius: Tensor | None = None
) -> Iterator[Block]:
    """All pairs of features (n, D) and others (N, D), some rows after the others. At most `most`
    neighbours are asked for. With `radius` (N,), squared distances are less its square."""
    scan = Scan(features, others, most, radius)
    rows = max(FEWEST, BLOCK[features.device.type] // scan.columns.shape[1])
    memory = scan.columns.new_empty(min(rows, len(features)), scan.columns.shape[1])
    for start in range(0, len(features), rows):
        points = scan.scaled(features[start : start + rows])
        low = memory[: len(points)]
        torch.mm(pad(points, (0, 1), value=1.0), scan.columns, out=low)
        yield Block(scan, start, squares(points), low)


class Scan:
    """The others, ready to be compared: moved to their mean and scaled to a largest length of 1.

    Either is done in double precision, where it changes a difference of two features by no more
    than its rounding.
    """

    def __init__(self, features: Tensor, others: Tensor, most: int, radius: Tensor | None):
        self.features, self.others = features, others
        self.centre = others.mean(dim=0, dtype=torch.float64)
        longest = max(self.longest(features), self.longest(others))
        self.scale = 1 / longest if longest > 0 else 1.0
        self.slack = 2 * (features.shape[1] + 16) * ROUNDING
        """Times |a|^2 + |b|^2, which is at least half of (|a| + |b|)^2, it limits the error."""
        groups = max(GROUPS, 4 * most)
        self.group = next((size for size in SIZES if len(others) >= groups * size), 1)
        padding = -len(others) % self.group
        columns = self.scaled(others)
        self.squares = squares(columns)
        self.reached = torch.zeros_like(self.squares)
        if radius is not None:
            self.reached = (radius * self.scale).square()
        low = (1 - self.slack) * self.squares - (1 + self.slack) * self.reached
        low = pad(low.float(), (0, padding), value=FAR)
        self.columns = torch.cat([-2 * pad(columns, (0, 0, 0, padding)), low[:, None]], dim=1).T
        """(D + 1, N): that a row, with a 1 behind it, times this is what `Block.low` says."""
        self.tallest = pad(self.squares, (0, padding)).view(-1, self.group).amax(dim=1)

    def longest(self, features: Tensor) -> float:
        parts = features.split(at_once(features))
        return max(float((rows.double() - self.centre).norm(dim=1).max()) for rows in parts)

    def scaled(self, features: Tensor) -> Tensor:
        """float32."""
        parts = features.split(at_once(features))
        return torch.cat([((r.double() - self.centre) * self.scale).float() for r in parts])


@dataclass
class Block:
    """Some rows against all columns, in the scaled units."""

    scan: Scan
    start: int
    squares: Tensor
    """|a|^2 of each row (R,)."""
    low: Tensor
    """For each pair (R, N) its squared distance less |a|^2 and less what it may be too large by."""

    @property
    def count(self) -> int:
        return len(self.squares)

    @cached_property
    def by_group(self) -> Tensor:
        """(R, groups, columns of a group)"""
        return self.low.view(self.count, -1, self.scan.group)

    @cached_property
    def least(self) -> Tensor:
        """(R, groups)"""
        return self.by_group.amin(dim=2)

    def per_row(self, value: float) -> Tensor:
        return torch.full_like(self.squares, value)

    def reach(self, k: int) -> Tensor:
        """A square (R,) that the distances to k different columns do not exceed."""
        low, groups = self.least.topk(min(k, self.least.shape[1]), dim=1, largest=False)
        slack = self.scan.slack
        high = (low + 2 * slack * self.scan.tallest[groups]).amax(dim=1)
        return high + (1 + slack) * self.squares + VANISHING

    def pairs_within(self, reach: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and columns (P,) of all pairs whose squared distance is within that of the row
        (R,), and of some others."""
        limit = (reach - (1 - self.scan.slack) * self.squares + VANISHING).float()[:, None]
        rows, groups = (self.least <= limit).nonzero(as_tuple=True)
        which, places = (self.by_group[rows, groups] <= limit[rows]).nonzero(as_tuple=True)
        return rows[which], groups[which] * self.scan.group + places

    def pairs_in_balls(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows and columns (P,) of all pairs of a point and a ball that it lies in, and of some
        others; and of which this is sure."""
        scan = self.scan
        rows, columns = self.pairs_within(self.per_row(0.0))
        beyond = self.low[rows, columns] + (1 + scan.slack) * self.squares[rows]
        may_be = 2 * scan.slack * (scan.squares[columns] + scan.reached[columns])
        return rows, columns, beyond + may_be + VANISHING <= 0

    def exact(self, rows: Tensor, columns: Tensor) -> Tensor:
        """The distances (P,) of these pairs. That of a pair has the same bits wherever it is."""
        if len(rows) > MOST * self.count * len(self.scan.others):
            return self.every_exact(self.per_row(1) > 0)[rows, columns]
        parts = at_once(self.scan.features)
        pairs = zip((self.start + rows).split(parts), columns.split(parts), strict=True)
        apart = [
            apart_by(self.scan.features[some][:, None], self.scan.others[few][:, None])[:, 0, 0]
            for some, few in pairs
        ]
        return torch.cat(apart) if apart else self.squares[:0]

    def every_exact(self, chosen: Tensor) -> Tensor:
        """The distances of the chosen rows, bool (R,), to all columns."""
        rows = self.scan.features[self.start : self.start + self.count][chosen]
        parts = self.scan.others.split(at_once(self.scan.others))
        return torch.cat([apart_by(rows, part) for part in parts], dim=1)


def apart_by(rows: Tensor, others: Tensor) -> Tensor:
    """Euclidean distances from differences, float64."""
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cdist(rows.double(), others.double(), compute_mode=mode)


def at_once(features: Tensor) -> int:
    return max(1, EXACT // features.shape[1])


def squares(points: Tensor) -> Tensor:
    """|a|^2 of points (n, D), float64."""
    return torch.cat([p.double().square().sum(dim=1) for p in points.split(at_once(points))])
