"""Features as points, checked before faiss gets them: it aborts the process where squares
overflow. Each member of a team gives its rows of them, and all find the same."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fw.core.errors import FwError, StageFailed
from fw.core.files.stacked import stacked
from fw.core.machine.tables import in_parts
from fw.core.machine.team import ALONE, Team

SHORTEST, LONGEST = 1e-12, 1e18
"""Between them torch's `normalize` is right in single precision; below, it divides by 1e-12."""

LARGEST = 1e15
"""Squares of such features, summed over a million of them, are still below the largest single,
3e38."""

SMALLEST = 1e-15
"""Squares of such differences are still normal singles, which end at 1e-38."""


def directions(features: Tensor) -> Tensor:
    """Features (N, D) scaled to length 1, float32; those that are all zero stay zero.

    Lengths whose squares overflow or vanish in single precision are computed in double precision.
    """
    features = features.float()
    points = normalize(features, dim=1)
    length = features.norm(dim=1)
    extreme = ~((length >= SHORTEST) & (length <= LONGEST)) & features.any(dim=1)
    points[extreme] = normalize(features[extreme].double(), dim=1, eps=1e-300).float()
    return points


def all_directions(features: Tensor, folder: Path) -> Tensor:
    """The same of any number of features, in a file on the disk of this folder where they are
    many."""
    return stacked(map(directions, in_parts(features)), folder)


def check_range(points: Tensor, whose: str, team: Team = ALONE) -> None:
    """StageFailed if distances between points (N, D) overflow or vanish in single precision."""
    ends = torch.cat([points.amax(dim=0), -points.amin(dim=0)])
    high, low = torch.tensor(team.most(ends.tolist())).view(2, -1)
    low = -low
    largest, spread = float(torch.maximum(high, -low).max()), float((high - low).max())
    if largest > LARGEST:
        raise StageFailed(
            f"{whose}: the features reach {largest:.2g}, where distances overflow: they must lie "
            "within "
            f"{LARGEST:g}; scale each to length 1 (`normalise: true`), or take another encoder"
        )
    if 0 < spread < SMALLEST:
        raise StageFailed(
            f"{whose}: the features differ by no more than {spread:.2g}, where distances vanish: "
            f"they must differ by {SMALLEST:g}; scale each to length 1 (`normalise: true`), or "
            "take another encoder"
        )


def different(points: Tensor, enough: int, team: Team = ALONE) -> int:
    """How many of the points (N, D) are different, counted up to `enough`."""
    distinct = set().union(*team.said(digests(points, enough)))
    return min(enough, len(distinct))


def digests(points: Tensor, enough: int) -> set[bytes]:
    """Of different points (N, D), up to `enough` of them."""
    distinct: set[bytes] = set()
    for few in in_parts(points):
        for point in (few.cpu() + 0.0).numpy():  # so that -0 is 0
            distinct.add(blake2b(point.tobytes(), digest_size=16).digest())
            if len(distinct) >= enough:
                return distinct
    return distinct


def check_clusters(points: Tensor, clusters: int, whose: str, team: Team = ALONE) -> None:
    """FwError if there are fewer points, or different ones, than clusters."""
    for count, what in (
        (int(team.added([len(points)])[0]), "images"),
        (different(points, clusters, team), "different features"),
    ):
        if count < clusters:
            raise FwError(
                f"{whose}: {clusters} clusters need as many {what}, and there are {count}"
            )
