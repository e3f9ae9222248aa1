"""The Frechet distance of Gaussians fitted to features (arXiv 1706.08500, eq. 6), with all that
concerns real images alone computed once.

|m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2). With any root R'R = C1 the last trace is the sum
of the square roots of the eigenvalues of R C2 R', which is symmetric: that takes a fraction of what
eigenvalues of C1 C2 take, and gives no complex numbers. torch-fidelity is the oracle in the tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

AT_ONCE = 2**22
"""Numbers in the features that are held in double precision at once."""

MEANS = 2**25
"""The same for means, whose bits depend on all rows of a column."""


def moments_of_real(features: Tensor) -> dict[str, Tensor]:
    """Of features (N, D), in double precision: their mean (D,), the trace of their covariance, and
    a root R (r, D) of that, R'R = C, with the lesser of N and the rank for r."""
    count, dims = features.shape
    mean = mean_of(features)
    if count < dims:
        root = (features.double() - mean) / (count - 1) ** 0.5
    else:
        values, vectors = torch.linalg.eigh(covariance(features, mean))
        # Directions without variance come out with some by rounding, whose root is not small.
        kept = values > dims * torch.finfo(values.dtype).eps * values[-1]
        root = values[kept].sqrt()[:, None] * vectors.T[kept]
    return {"mean": mean, "trace": root.square().sum(), "root": root.contiguous()}


def distance(real: Mapping[str, Tensor], features: Tensor) -> float:
    """From what `moments_of_real` made to features (n, D). What rounding leaves below 0 is 0."""
    count, dims = features.shape
    mean, root = mean_of(features), real["root"]
    if count < dims:
        centred = (features.double() - mean) / (count - 1) ** 0.5
        trace = centred.square().sum()
        turned = centred @ root.T  # (n, r)
        product = turned @ turned.T if count < len(root) else turned.T @ turned
    else:
        spread = covariance(features, mean)
        trace = spread.trace()
        product = root @ spread @ root.T
    both = torch.linalg.eigvalsh(product).clamp(min=0).sqrt().sum()
    shift = (real["mean"] - mean).square().sum()
    return max(0.0, float(shift + real["trace"] + trace - 2 * both))


def bias(features: Tensor) -> float:
    """What the distance between n features and the distribution of features (N, D) is on average,
    times n: to second order, in which it is quadratic in the errors of mean and covariance.

    tr C + 1/2 sum_ij v_ij / (l_i + l_j), where l are the eigenvalues of C and v_ij is the variance
    of y_i y_j over the features, y in the eigenvectors' basis. Directions without variance have no
    errors.
    """
    mean = mean_of(features)
    values, vectors = torch.linalg.eigh(covariance(features, mean))
    kept = values > len(mean) * torch.finfo(values.dtype).eps * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    fourth = torch.zeros(len(values), len(values), dtype=torch.float64, device=features.device)
    for rows in in_parts(features):
        squared = ((rows.double() - mean) @ vectors).square()
        fourth.addmm_(squared.T, squared)
    errors = fourth / len(features) - torch.diag(values.square())
    return float(values.sum() + 0.5 * (errors / (values[:, None] + values)).sum())


def mean_of(features: Tensor) -> Tensor:
    """The mean (D,) of features (n, D), in double precision. On the CPU torch copies what it sums
    up; so many columns at a time, 16 or more, have the same bits."""
    width = max(1, MEANS // (16 * len(features))) * 16
    parts = [few.mean(dim=0, dtype=torch.float64) for few in features.split(width, dim=1)]
    return torch.cat(parts)


def covariance(features: Tensor, mean: Tensor) -> Tensor:
    """(D, D), of features (n, D)."""
    total = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=features.device)
    for rows in in_parts(features):
        centred = rows.double() - mean
        total.addmm_(centred.T, centred)
    return total / (len(features) - 1)


def in_parts(features: Tensor) -> Iterator[Tensor]:
    yield from features.split(max(1, AT_ONCE // features.shape[1]))
