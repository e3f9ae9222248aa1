"""Names for classes that were found without labels: which label each stands for, by the training
images."""

from __future__ import annotations

import torch
from torch import Tensor

from fw.core.types import Examples
from fw.plugins.probes.labels import labels_of


def named_by(found: Tensor, clusters: int, data: Examples) -> tuple[Tensor, bool]:
    """The label of each of K classes, of which `found` (N,) are those of the images of `data`: (K,)

    No label is given twice, by the Hungarian method; where there are more classes than labels (then
    the bool is False), each has the label of most of its images.
    """
    counts = counted(found, clusters, data)
    one_to_one = clusters <= data.classes
    return matched(counts) if one_to_one else counts.argmax(dim=1), one_to_one


def counted(found: Tensor, clusters: int, data: Examples) -> Tensor:
    """How many images of each class have each label, (K, labels); those of class -1 are not
    counted."""
    known = found >= 0
    pairs = found[known] * data.classes + labels_of(data)[known]
    return pairs.bincount(minlength=clusters * data.classes).view(clusters, data.classes)


def matched(counts: Tensor) -> Tensor:
    """The label of each class, no label twice, such that most images have theirs: (K,)"""
    from scipy.optimize import linear_sum_assignment

    return torch.from_numpy(linear_sum_assignment(counts.numpy(), maximize=True)[1])
