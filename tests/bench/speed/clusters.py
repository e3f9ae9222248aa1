"""Clusters and neighbours: beside scikit-learn's defaults, and lightly's Sinkhorn."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor
from torch.nn.functional import normalize

from bench.speed import counted
from bench.speed.interleaved import paired, timed
from bench.speed.row import Goal, Row, speed
from fw.core.features.kmeans import Centroids
from fw.core.job import Job
from fw.core.types import Observations
from fw.plugins.annotators.knn import KNN
from fw.plugins.annotators.sinkhorn import assignments, shares

EPSILON = 0.05
"""Of lightly's Sinkhorn. It takes exponentials of scores / epsilon: at fw's own 0.005 they
overflow."""


@dataclass(frozen=True)
class Size:
    points: int = 50_000
    dims: int = 384
    clusters: int = 100
    few: int = 10_000
    """Points whose neighbours are looked for."""
    iterations: int = 100
    """As many as the annotator takes."""
    pairs: int = 3


SMALL = Size(points=400, dims=16, clusters=5, few=200, iterations=3, pairs=1)


def rows(size: Size = Size()) -> Iterator[Row]:
    points = features(size)
    yield from kmeans(points, size)
    for metric in ("minkowski", "cosine"):
        yield neighbours(points[: size.few], metric, size.pairs)
    yield sinkhorn(points, size)


def features(size: Size) -> Tensor:
    """Directions (N, D) in three times as many clouds as there are clusters, which overlap."""
    draw = torch.Generator().manual_seed(0)
    centres = 0.3 * torch.randn(3 * size.clusters, size.dims, generator=draw)
    cloud = torch.randint(len(centres), (size.points,), generator=draw)
    return normalize(centres[cloud] + torch.randn(size.points, size.dims, generator=draw), dim=1)


def kmeans(points: Tensor, size: Size) -> Iterator[Row]:
    from sklearn.cluster import KMeans

    found: dict[str, list[tuple[Tensor, Tensor]]] = {"ours": [], "theirs": []}

    def ours() -> None:
        centroids = Centroids(points, size.clusters, seed=len(found["ours"]))
        found["ours"].append((centroids.vectors, centroids.nearest(points)))

    def theirs() -> None:
        seed = len(found["theirs"])
        fitted = KMeans(size.clusters, random_state=seed).fit(points.numpy())
        vectors, near = map(torch.from_numpy, (fitted.cluster_centers_, fitted.labels_))
        found["theirs"].append((vectors, near.long()))

    what = f"k-means, N {size.points:,}, D {size.dims}, K {size.clusters}"
    pairs = paired(timed(ours), timed(theirs), size.pairs)
    yield speed(what, "scikit-learn's KMeans()", pairs, 2.5)
    mean = {
        name: fmean(inertia(points, *clusters) for clusters in runs) for name, runs in found.items()
    }
    unit, against = "x the inertia", "scikit-learn's KMeans(), mean over seeds"
    ratio = mean["ours"] / mean["theirs"]
    yield Row(what, against, ratio, unit, Goal(1.005), counts=mean)


def inertia(points: Tensor, centroids: Tensor, near: Tensor) -> float:
    """The sum of squared distances of points to their centroids."""
    return float((points - centroids[near]).square().sum(dtype=torch.float64))


def neighbours(points: Tensor, metric: str, pairs: int) -> Row:
    """By cosine. Of directions, the nearest by Euclid, scikit-learn's default, are the same."""
    from sklearn.neighbors import NearestNeighbors

    annotator = KNN(k=4)
    found: dict[str, Tensor] = {}

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            data = Observations(count=len(points), features=points)
            found["ours"] = annotator.nearest(data, Job(Path(folder)))[1]

    def theirs() -> None:
        index = NearestNeighbors(n_neighbors=4, algorithm="brute", metric=metric)
        found["theirs"] = torch.from_numpy(index.fit(points.numpy()).kneighbors()[1])

    turns = paired(timed(ours), timed(theirs), pairs)
    same = float((found["ours"] == found["theirs"]).double().mean())
    what = f"4 nearest neighbours, N {len(points):,}, D {points.shape[1]}"
    against = f"scikit-learn's brute force, {metric}"
    return speed(what, against, turns, 3, the_same_share=same)


def sinkhorn(points: Tensor, size: Size) -> Row:
    from lightly.loss.swav_loss import sinkhorn as by_lightly

    scores = points @ points[: size.clusters].T

    def ours() -> Tensor:
        return assignments(scores, EPSILON, shares(scores, EPSILON, size.iterations))

    def theirs() -> Tensor:
        return by_lightly(scores, size.iterations, EPSILON).argmax(dim=1)

    pairs = paired(timed(ours), timed(theirs), size.pairs)
    same = float((ours() == theirs()).double().mean())
    moved = {name: counted.dispatched(w).bytes for name, w in (("o", ours), ("t", theirs))}
    return speed(
        f"Sinkhorn, N {len(points):,}, K {size.clusters}, {size.iterations} iterations",
        "lightly's sinkhorn",
        pairs,
        2,
        the_same_share=same,
        bytes_of_theirs=moved["o"] / moved["t"],
    )
