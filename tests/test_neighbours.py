"""Neighbours by products of matrices, against all exact distances: the same to the bit, however
hard the features are to tell apart."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fw.plugins.metrics import neighbours
from fw.plugins.metrics.neighbours import in_balls, nearest, radii

Make = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
HARD: dict[str, Make] = {
    "plain": lambda a, b, copies: (a, b),
    "far from zero": lambda a, b, copies: (a + 1e6, b + 1e6),
    "far from each other": lambda a, b, copies: (a + 1e4, b),
    "copies": lambda a, b, copies: (copies, b),
    "nearly copies": lambda a, b, copies: (copies + 1e-5 * a, b),
    "ties, on a grid": lambda a, b, copies: (a.round(), b.round()),
    "one far out": lambda a, b, copies: (a, torch.cat([b, 1e7 * b[:1]])),
    "samples all the same": lambda a, b, copies: (a[:1].expand_as(a).contiguous(), b),
    "all the same": lambda a, b, copies: (torch.ones_like(a), torch.ones_like(b)),
    "each held out twice": lambda a, b, copies: (torch.cat([b, b]), torch.cat([b, b])),
    "tiny": lambda a, b, copies: (1e-25 * a, 1e-25 * b),
    "huge": lambda a, b, copies: (1e25 * a, 1e25 * b),
}
SHAPES = [(1, 1, 2), (60, 40, 3), (150, 700, 16), (50, 300, 200)]


def case(what: str, count: int, others: int, dims: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, dims, generator=draw) for n in (count, others))
    return HARD[what](a, b, b[torch.randint(others, (count,), generator=draw)])


def every_distance(features: Tensor, others: Tensor) -> Tensor:
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cdist(features.double(), others.double(), compute_mode=mode)


@pytest.fixture(autouse=True)
def _several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", {"cpu": 20_000})
    monkeypatch.setattr(neighbours, "EXACT", 5000)


@pytest.mark.parametrize("what", HARD)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("of_others", [False, True])
def test_the_nearest_is_that_of_all_exact_distances(
    what: str, shape: tuple[int, int, int], of_others: bool
) -> None:
    features, others = case(what, *shape)
    apart = every_distance(features, others)
    if of_others:
        apart.masked_fill_(apart == 0, torch.inf)
    distance, number = apart.min(dim=1)
    found = nearest(features, others, of_others)
    assert torch.equal(found.distance, distance)
    assert torch.equal(found.number, number)


@pytest.mark.parametrize("what", HARD)
@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
def test_radii_and_balls_are_those_of_all_exact_distances(
    what: str, shape: tuple[int, int, int]
) -> None:
    features, others = case(what, *shape)
    apart = every_distance(others, others).sort(dim=1).values
    narrow, wide = radii(others, 3, 5)
    assert torch.equal(narrow, apart[:, 3])
    assert torch.equal(wide, apart[:, 5])
    expected = every_distance(features, others) <= wide
    inside = torch.zeros_like(expected)
    for hits in in_balls(features, others, wide):
        inside[hits.points, hits.balls] = True
    assert torch.equal(inside, expected)


def test_few_of_all_distances_are_taken_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a product of matrices would save nothing."""
    features, others = case("plain", 400, 2000, 64)
    taken: list[int] = []
    exact = neighbours.apart_by

    def counted(rows: Tensor, columns: Tensor) -> Tensor:
        taken.append(len(rows) * columns.shape[-2])
        return exact(rows, columns)

    monkeypatch.setattr(neighbours, "apart_by", counted)
    nearest(features, others)
    assert sum(taken) < 2 * len(features)
