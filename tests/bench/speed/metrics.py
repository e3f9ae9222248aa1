"""Metrics: samples compared with what was measured once of real images, beside torch-fidelity and
plain numpy and torch. What concerns real images alone is not timed on either side."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.speed.interleaved import paired, timed
from bench.speed.row import Goal, Row, speed
from fw.core.kinds import Metric
from fw.core.types import Reference
from fw.plugins.metrics.fd import FD
from fw.plugins.metrics.memorisation import Memorisation, distances_compared, sides_compared
from fw.plugins.metrics.neighbours import Nearest
from fw.plugins.metrics.prdc import PRDC

EVALUATED = Path(__file__).parents[2] / "evaluated.py"

EXACT = "donot_use_mm_for_euclid_dist"


@dataclass(frozen=True)
class Size:
    frechet: tuple[int, int] = (2500, 2048)
    """Samples, as many real images, and dimensions."""
    prdc: tuple[int, int] = (5000, 256)
    memorisation: tuple[int, int] = (2000, 256)
    """As many held-out images and ten times as many training images."""
    evaluated: tuple[int, int, int] | None = (256, 50, 3)
    """The side of images, thousands of samples of a seed, and seeds; None evaluates none."""
    pairs: int = 3


SMALL = Size((80, 16), (100, 8), (60, 8), None, pairs=1)


class Scored(NamedTuple):
    """A metric and what is scored by it."""

    metric: Metric
    prepared: Any
    fake: Tensor

    def scores(self) -> dict[str, float]:
        return self.metric.compare(self.prepared, self.fake)


def rows(size: Size = Size()) -> Iterator[Row]:
    yield from frechet(*size.frechet, size.pairs)
    yield from prdc(*size.prdc, size.pairs)
    yield from memorisation(*size.memorisation, size.pairs)
    if size.evaluated is not None:
        yield memory(*size.evaluated)


def frechet(count: int, dims: int, pairs: int) -> Iterator[Row]:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    real, fake = clouds(dims, count, count)
    metric = FD()
    prepared = metric.prepare(Reference(real, real[: count // 2]))
    known = fid_features_to_statistics(real.double())

    def theirs() -> float:
        statistics = fid_features_to_statistics(fake.double())
        return float(*fid_statistics_to_metric(known, statistics, verbose=False).values())

    # fw divides by the mean variance of real images' features.
    variance = float(real.double().var(dim=0).mean())
    yield from both_ways(
        f"Frechet distance, {count:,} samples, D {dims:,}",
        "torch-fidelity's",
        lambda: {"distance": prepared.distance(fake)},
        lambda: {"distance": theirs() / variance},
        pairs,
        goal=1.5,
        agreement=1e-6,
    )


def prdc(count: int, dims: int, pairs: int) -> Iterator[Row]:
    real, fake = clouds(dims, count, count)
    metric = PRDC()
    scored = Scored(metric, metric.prepare(Reference(real, real[: count // 2])), fake)
    points = real.double().numpy()
    narrow, wide = radii(points, metric.nearest_k), radii(points, metric.coverage_k)

    def theirs() -> dict[str, float]:
        samples = fake.double().numpy()
        apart = distances(samples, points)
        scores = (
            (apart <= narrow).any(axis=1).mean(),
            (apart <= radii(samples, metric.nearest_k)[:, None]).any(axis=0).mean(),
            (apart <= wide).sum() / (metric.coverage_k * count),
            (apart.min(axis=0) <= wide).mean(),
        )
        return dict(zip(metric.keys, map(float, scores), strict=True))

    yield from both_ways(
        f"prdc, {count:,} samples and as many real images, D {dims}",
        "numpy and scikit-learn in fp64",
        scored.scores,
        theirs,
        pairs,
        agreement=1e-12,
    )


def radii(points: np.ndarray, k: int) -> np.ndarray:
    return np.partition(distances(points, points), k, axis=1)[:, k]


def distances(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    from sklearn.metrics import pairwise_distances

    return pairwise_distances(points, others)


def memorisation(count: int, dims: int, pairs: int) -> Iterator[Row]:
    held_out, train, fake = clouds(dims, count, 10 * count, count)
    fake[: count // 10] = train[: count // 10]  # copies
    metric = Memorisation()
    scored = Scored(metric, metric.prepare(Reference(train, held_out)), fake)
    real, new, samples = (each.double() for each in (train, held_out, fake))
    apart, _ = nearest(new, real)

    def theirs() -> dict[str, float]:
        to_train, to_held_out = nearest(samples, real), nearest(samples, new)
        scores = (
            *distances_compared(to_train.distance, apart),
            *sides_compared(to_train, to_held_out, len(real), len(new)),
        )
        return dict(zip(metric.keys, scores, strict=True))

    yield from both_ways(
        f"memorisation, {count:,} samples, {len(train):,} training images, D {dims}",
        "all differences in fp64, as fw did before",
        scored.scores,
        theirs,
        pairs,
        goal=10,
        agreement=1e-12,
    )


def nearest(points: Tensor, others: Tensor) -> Nearest:
    """Distances to the nearest of the others, and its number, from all differences."""
    found = [torch.cdist(few, others, compute_mode=EXACT).min(dim=1) for few in points.split(1000)]
    return Nearest(*(torch.cat(each) for each in zip(*found, strict=True)))


def memory(side: int, thousands: int, seeds: int) -> Row:
    """What a process takes that scores samples by fd, kid, prdc and memorisation in a cheap
    space."""
    with tempfile.TemporaryDirectory(prefix="speed-") as folder:
        sizes = map(str, (side, thousands, seeds, 1000 * thousands))
        words = [sys.executable, str(EVALUATED), folder, *sizes]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    made = json.loads(done.stdout)
    what = f"evaluating {seeds} x {1000 * thousands:,} images of {side}x{side}"
    counts = {"before it began, MB": made["before"], "CPU s": made["cpu"]}
    pixels = f"their pixels, {seeds * thousands * side**2 * 3 / 1e6:,.1f} GB"
    return Row(what, pixels, made["peak"], "MB at most", Goal(2000), counts=counts)


def both_ways(
    what: str,
    against: str,
    ours: Callable[[], Mapping[str, float]],
    theirs: Callable[[], Mapping[str, float]],
    pairs: int,
    agreement: float,
    goal: float | None = None,
) -> Iterator[Row]:
    """How much faster ours is, and the largest relative difference of a score."""
    yield speed(what, against, paired(timed(ours), timed(theirs), pairs), goal)
    scores = ours()
    apart = max(
        abs(scores[key] - other) / max(abs(other), 1e-12) for key, other in theirs().items()
    )
    yield Row(what, against, apart, "apart, of the score", Goal(agreement))


def clouds(dims: int, *counts: int) -> list[Tensor]:
    """Features (n, D), whose directions differ in spread as those of images do."""
    draw = torch.Generator().manual_seed(0)
    spread = torch.arange(1, dims + 1).float() ** -0.5
    mix = torch.randn(dims, dims, generator=draw) / dims**0.5
    return [(torch.randn(count, dims, generator=draw) * spread) @ mix for count in counts]
