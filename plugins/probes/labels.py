"""What probes do with labels: the share that was recognised, and which few of them are shown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fw.core.errors import StageFailed
from fw.core.types import Examples


def labels_of(data: Examples) -> Tensor:
    """The labels (N,)."""
    if data.labels is None:
        raise StageFailed("this probe needs a dataset with labels")
    return data.labels


def accuracy(found: Tensor | Sequence[Tensor], data: Examples) -> float:
    """The share of labels that were found, by all at once or in batches."""
    said = found if isinstance(found, Tensor) else torch.cat(list(found))
    return float((said == labels_of(data)).double().mean())


def stratified(labels: Tensor, share: float, generator: torch.Generator, least: int = 1) -> Tensor:
    """A share of the places of each class in labels (N,), at random, in ascending order.

    At least `least` of a class, as far as it has so many. Of the same stream, a smaller share is
    part of a larger one.
    """
    order = torch.randperm(len(labels), generator=generator)
    chosen = []
    for label in labels.unique().tolist():
        places = order[labels[order] == label]
        chosen.append(places[: max(least, round(share * len(places)))])
    return torch.cat(chosen).sort().values
