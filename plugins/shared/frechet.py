"""The Frechet distance of Gaussians fitted to two sets of vectors (arXiv 1706.08500, eq. 6).

|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), which torch-fidelity computes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor


def gaussian(vectors: Tensor) -> dict[str, Any]:
    """Mean and covariance of vectors (N, D), in double precision on the CPU."""
    from torch_fidelity.metric_fid import fid_features_to_statistics

    return fid_features_to_statistics(vectors.double().cpu())


def distance(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The distance between two such Gaussians. What rounding leaves below zero is zero."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    return max(0.0, fid_statistics_to_metric(one, other, verbose=False)[KEY_METRIC_FID])
