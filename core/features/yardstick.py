"""Do clusters say more of the true labels than clusters of plain pixels, or than chance?

Both are scored by adjusted mutual information (Vinh et al., Journal of Machine Learning Research
11, 2010): 0 for random clusters of any number and size, 1 for the labels themselves. How far two
such scores may differ by chance comes from how much each image adds to them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from fw.core.diffusion.pixels import to_unit
from fw.core.features.kmeans import Centroids
from fw.core.features.points import directions
from fw.core.randomness import seed_from, some

IMAGES = 10_000
PER_CLUSTER = 20
"""Images that are compared: so many, or so many for each cluster if that is more."""

AT_ONCE = 500
"""Images that are turned into floats at once."""

SIDE = 16
"""Larger images are averaged to so many pixels a side."""

CLUSTERINGS = 3
"""Of the pixels: their mean score is compared, because k-means of other seeds has other ones."""

NOTICED = 0.02
"""A lead that is smaller is none: k-means of other seeds differs by as much."""

OF_THE_REST = 0.2
"""Nor is one that is a smaller share of what pixels lack, if that is less: fine clusters of pixels
may tell nearly all."""

ERRORS = 2.0
"""Standard errors by which a lead has to be larger than that."""


class Comparison(NamedTuple):
    """AMI of clusters and of as many k-means clusters of pixels, the best that such clusters could
    have, and the standard errors of the first and of the difference over images."""

    ami: float
    pixels: float
    best: float
    error: float
    error_of_lead: float

    @property
    def warning(self) -> str | None:
        """What is to be said if the clusters are hardly better than chance or than pixels."""
        lead = self.ami - self.pixels
        agree = f"its clusters agree with the true labels by AMI {self.ami:.3f}"
        if self.ami <= NOTICED + ERRORS * self.error:
            return f"{agree} ± {self.error:.3f}: hardly better than random ones"
        rest = self.best - self.pixels
        noticed = min(NOTICED, OF_THE_REST * rest)
        if rest > NOTICED and lead <= noticed + ERRORS * self.error_of_lead:
            return (
                f"{agree}, and as many of plain pixels by {self.pixels:.3f} (difference {lead:.3f} "
                f"± {self.error_of_lead:.3f}): hardly better than pixels; its encoder's steps or "
                "views (`augment`) may not fit these images, or pixels may do"
            )
        return None


def compared_with_pixels(
    groups: Tensor,
    count: int,
    images: Tensor,
    labels: Tensor,
    seed: int,
    places: Tensor | None = None,
) -> Comparison:
    """Of `count` groups, ids (n,), of uint8 images (N, C, H, W) with true labels (n,), all on the
    same images, at random where there are many. `places` (n,) are the numbers of the images, if
    they are not all."""
    chosen = some(len(groups), max(IMAGES, PER_CLUSTER * count), seed, "yardstick")
    groups, labels = groups[chosen].cpu(), labels[chosen].cpu()
    own = scored(groups, labels)
    numbers = chosen if places is None else places[chosen]
    points = torch.cat([pixels_as_points(images[few]) for few in numbers.split(AT_ONCE)])
    clusterings = [
        Centroids(points, min(count, len(points)), seed_from(seed, "yardstick", number))
        for number in range(CLUSTERINGS)
    ]
    pixels = [scored(each.nearest(points), labels) for each in clusterings]
    lead = own.influence - torch.stack([each.influence for each in pixels]).mean(dim=0)
    return Comparison(
        own.ami,
        sum(each.ami for each in pixels) / CLUSTERINGS,
        sum(each.best for each in pixels) / CLUSTERINGS,
        standard_error(own.influence),
        standard_error(lead),
    )


def pixels_as_points(images: Tensor) -> Tensor:
    """Pixels (N, D) of length 1, as annotator kmeans has them of encoder pixels."""
    pixels = to_unit(images)
    if max(images.shape[2:]) > SIDE:
        pixels = adaptive_avg_pool2d(pixels, SIDE)
    return directions(pixels.flatten(1).cpu())


class Scored(NamedTuple):
    """The AMI of groups with labels, the largest one of groups and labels of these sizes, and how
    much each image adds to the AMI: (N,) of mean 0."""

    ami: float
    best: float
    influence: Tensor


def scored(groups: Tensor, labels: Tensor) -> Scored:
    """AMI = (I - E) / (A - E): mutual information I, its mean E under permutation of the groups,
    and A, the mean of the two entropies.

    I and the entropies are means over images of logarithms of shares, so that each image's own are
    its influence. E hardly depends on a single image.
    """
    from sklearn.metrics.cluster import expected_mutual_information

    table = torch.zeros(int(groups.max()) + 1, int(labels.max()) + 1, dtype=torch.float64)
    table.index_put_((groups, labels), torch.ones(1, dtype=torch.float64), accumulate=True)
    shares = table / len(groups)
    of_group, of_label = shares.sum(dim=1), shares.sum(dim=0)
    of_groups, of_labels = -of_group[groups].log(), -of_label[labels].log()  # (N,) each
    entropies = (of_groups + of_labels) / 2
    information = shares[groups, labels].log() + of_groups + of_labels  # (N,)
    used = table[table.any(dim=1)][:, table.any(dim=0)].long().numpy()
    expected = expected_mutual_information(used, len(groups))
    span = entropies.mean() - expected
    if not span > 0:  # groups of one image each, or one group and one label
        return Scored(0.0, 0.0, torch.zeros_like(entropies))
    ami = (information.mean() - expected) / span
    influence = information - information.mean() - ami * (entropies - entropies.mean())
    best = (min(of_groups.mean(), of_labels.mean()) - expected) / span
    return Scored(float(ami), float(best), influence / span)


def standard_error(influence: Tensor) -> float:
    return float(influence.std() / len(influence) ** 0.5)
