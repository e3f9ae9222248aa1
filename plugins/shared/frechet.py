"""The Frechet distance of Gaussians fitted to two sets of vectors (arXiv 1706.08500, eq. 6).

|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), which torch-fidelity computes.
"""

from __future__ import annotations

from torch import Tensor


def frechet(reference: Tensor, other: Tensor) -> float:
    """The distance between vectors (N, D) and (n, D), in double precision on the CPU.

    Rounding can make it negative; it is zero then.
    """
    from torch_fidelity.metric_fid import (
        KEY_METRIC_FID,
        fid_features_to_statistics,
        fid_statistics_to_metric,
    )

    statistics = [fid_features_to_statistics(each.double().cpu()) for each in (reference, other)]
    return max(0.0, fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])
