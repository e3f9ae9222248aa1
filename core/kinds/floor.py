"""The floor of a score: what real images that nothing was trained on score in the place of
samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from fw.core.randomness import generator

FLOORS = 4
"""Sets of held-out images, at most, whose mean score is the floor."""


def mean_of_sets(
    compare: Callable[[Any, Tensor, Tensor | None], Mapping[str, float]],
    prepared: Any,
    held_out: Tensor,
    count: int,
    wanted: Tensor | None,
) -> dict[str, float]:
    """The mean scores of sets of `count` held-out images (M, D), of all where there are fewer;
    `wanted` are their classes (M,). A score without a mean has no floor."""
    sets = [
        compare(prepared, held_out[rows], None if wanted is None else wanted[rows])
        for rows in sets_of(count, len(held_out))
    ]
    means = {key: mean([scores[key] for scores in sets]) for key in sets[0]}
    return {key: value for key, value in means.items() if not math.isnan(value)}


def mean(values: Sequence[float]) -> float:
    """Not a number where infinite ones cancel."""
    return fmean(values) if all(map(math.isfinite, values)) else sum(values)


def sets_of(count: int, images: int) -> Iterator[Tensor]:
    """The numbers of the images of at most FLOORS sets of `count`, none in two; all of them, in
    their order, where there are no more."""
    if images <= count:
        yield torch.arange(images)
    else:
        shuffled = torch.randperm(images, generator=generator("floor"))
        yield from shuffled[: images // count * count].split(count)[:FLOORS]
