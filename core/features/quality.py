"""How good an annotation is: by itself, and against true labels where there are any."""

from __future__ import annotations

import torch
from torch import Tensor


def cluster_quality(conditions: Tensor, labels: Tensor) -> dict[str, float]:
    """Agreement of cluster ids (N,) with true labels (N,), both int64; 1 is perfect.

    `nmi` and `purity` rise with the number of clusters; `ami` and `ari` are corrected for chance.
    """
    from sklearn import metrics

    clusters, true = conditions.cpu().numpy(), labels.cpu().numpy()
    table = metrics.cluster.contingency_matrix(true, clusters)  # (classes, clusters)
    return {
        "nmi": float(metrics.normalized_mutual_info_score(true, clusters)),
        "ami": float(metrics.adjusted_mutual_info_score(true, clusters)),
        "ari": float(metrics.adjusted_rand_score(true, clusters)),
        "purity": float(table.max(axis=0).sum() / table.sum()),
    }


def utilisation(conditions: Tensor, clusters: int) -> dict[str, float]:
    """How evenly ids (N,) use the `clusters`, each in 0..1 with 1 for equal sizes.

    `used` is the share of clusters that have an image; `balance` is the perplexity of the sizes
    over `clusters`.
    """
    share = torch.bincount(conditions.cpu(), minlength=clusters).double() / len(conditions)
    perplexity = torch.special.entr(share).sum().exp()
    return {"used": float((share > 0).double().mean()), "balance": float(perplexity / clusters)}


def difference(bank: Tensor, other: Tensor) -> float | None:
    """The share of draws from one bank of conditions that would have to change to be draws from the
    other, 0..1.

    None for banks of vectors or tokens, unless they are equal.
    """
    if bank.is_floating_point():
        return 0.0 if torch.equal(bank, other) else None
    size = int(max(bank.max(), other.max())) + 1
    one, two = (torch.bincount(each, minlength=size).double() / len(each) for each in (bank, other))
    return float((one - two).abs().sum() / 2)
