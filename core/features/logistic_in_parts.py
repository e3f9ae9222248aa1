"""The regression of core/features/logistic.py of any number of images: features are read in parts
and compared on any device, and scipy moves the weights as scikit-learn has it do.

The objective is scikit-learn's: the mean cross-entropy, and the squared weights over 2 C N; two
classes have one logit. So are the optimizer, L-BFGS-B, and where it ends. What differs is the order
of sums, in double precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from fw.core.machine.tables import AT_ONCE, near
from fw.core.machine.transfer import sent

GRADIENT = 1e-4
"""No entry of the gradient is larger at the end (scikit-learn's `tol`)."""

FALL = 64 * np.finfo(np.float64).eps
"""A step that lowers the objective by less, relative to it, is the last."""

SEARCH = 50
"""Tries of a step's length, at most."""

HOST = torch.device("cpu")


@dataclass(frozen=True)
class Regression:
    """A fitted classifier."""

    classes: Tensor
    """The labels that it knows (K,), in ascending order."""
    mean: Tensor
    scale: Tensor
    """Of the features that it was fitted on (D,), double."""
    weights: Tensor
    """(K, D + 1), or (1, D + 1) of two classes; the last of each is added."""

    def logits(self, features: Tensor) -> Tensor:
        """Of features (n, D): (n, K), double, on the classifier's device."""
        device = self.mean.device
        points = sent(features, device).to(torch.float64, copy=True)
        points.sub_(self.mean).div_(self.scale)
        logits = torch.addmm(self.weights[:, -1], points, self.weights[:, :-1].T)
        return pad(logits, (1, 0)) if len(self.weights) == 1 else logits

    @torch.no_grad()
    def predict(self, features: Tensor) -> Tensor:
        """The labels (n,) of features (n, D)."""
        logits = (self.logits(few) for few in parts(features, self.weights))
        return torch.cat([self.classes[each.argmax(dim=1).cpu()] for each in logits])


def regression(
    features: Tensor,
    labels: Tensor,
    places: Tensor,
    C: float,
    iterations: int,
    device: torch.device = HOST,
    after: Callable[[], object] = lambda: None,
) -> Regression:
    """Fitted to features (N, D) and their labels (N,), of two classes or more, at these places
    (n,).

    `C` is the inverse strength of the penalty; `after` is called after each iteration. There is no
    warning if `iterations` were too few.
    """
    from scipy.optimize import minimize
    from sklearn.preprocessing import StandardScaler

    features = near(features, device)
    classes, targets = labels[places].unique(return_inverse=True)
    shape = (1 if len(classes) == 2 else len(classes), features.shape[1] + 1)
    start = torch.zeros(shape, dtype=torch.float64, device=device)
    scaler = StandardScaler()
    for few in parts(places, start):
        scaler.partial_fit(features[few].double().cpu().numpy())
    mean, scale = (torch.from_numpy(each).to(device) for each in (scaler.mean_, scaler.scale_))

    def objective(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        weights = torch.from_numpy(flat).to(device).view(shape).requires_grad_()
        model = Regression(classes, mean, scale, weights)
        penalty = weights[:, :-1].square().sum() / (2 * C * len(places))
        penalty.backward()
        total = penalty.detach()
        for few, wanted in zip(parts(places, start), parts(targets, start), strict=True):
            logits = model.logits(features[few])
            term = cross_entropy(logits, sent(wanted, device), reduction="sum") / len(places)
            term.backward()
            total = total + term.detach()
        assert weights.grad is not None
        return float(total), weights.grad.cpu().numpy().ravel()

    ended = minimize(
        objective,
        start.cpu().numpy().ravel(),
        method="L-BFGS-B",
        jac=True,
        callback=lambda _: after(),
        options={"maxiter": iterations, "maxls": SEARCH, "gtol": GRADIENT, "ftol": FALL},
    )
    weights = torch.from_numpy(ended.x).to(device).view(shape)
    return Regression(classes, mean, scale, weights)


def parts(rows: Tensor, weights: Tensor) -> Iterator[Tensor]:
    """So many rows at a time that they and their logits fit into memory."""
    yield from rows.split(max(1, AT_ONCE // max(weights.shape)))
