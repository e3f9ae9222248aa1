"""Logistic regression on standardised features: a linear probe.

By scikit-learn, where what it holds in memory is little; else by its objective and optimizer with
the features in parts.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fw.core.errors import StageFailed
from fw.core.features.logistic_in_parts import HOST, Regression, regression
from fw.core.machine.tables import AT_ONCE

PER_NUMBER, PER_LOGIT = 17, 54
"""Bytes that scikit-learn takes for each image and feature, and for each image and class
(measured)."""

MOST = 2**29
"""Bytes that it may take: 0.5 GiB."""


def linear_probe(
    features: Tensor,
    labels: Tensor,
    C: float = 1.0,
    iterations: int = 300,
    places: Tensor | None = None,
    device: torch.device = HOST,
    after: Callable[[], object] = lambda: None,
) -> Any:
    """A classifier fitted to features (N, D) and their labels (N,) at these places (n,), or all.

    `C` is the inverse strength of the penalty. There is no warning if `iterations` were too few.
    Many features are compared on `device`, and `after` is called after each iteration. StageFailed
    if all labels are of one class.
    """
    places = torch.arange(len(features)) if places is None else places
    classes = labels[places].unique()
    if len(classes) < 2:
        lacking = "labels of one class alone: nothing to tell apart"
        raise StageFailed(f"a linear probe is to be fitted on {lacking}")
    if len(places) * (PER_NUMBER * features.shape[1] + PER_LOGIT * len(classes)) > MOST:
        return regression(features, labels, places, C, iterations, device, after)
    return of_few(features[places], labels[places], C, iterations)


def of_few(features: Tensor, labels: Tensor, C: float, iterations: int) -> Any:
    """By scikit-learn."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=iterations))
        return classifier.fit(features.double().numpy(), labels.numpy())


def accuracy_of(
    classifier: Any, features: Tensor, labels: Tensor, places: Tensor | None = None
) -> float:
    """The share of labels (N,) that such a classifier predicts from features (N, D), at these
    places (n,), or of all."""
    places = torch.arange(len(features)) if places is None else places
    rows = max(1, AT_ONCE // features.shape[1])
    right = torch.empty(len(places), dtype=torch.bool)
    for few, found in zip(places.split(rows), right.split(rows), strict=True):
        found[:] = predicted(classifier, features[few]) == labels[few]
    return float(right.double().mean())


def predicted(classifier: Any, features: Tensor) -> Tensor:
    """The labels (n,) of features (n, D)."""
    if isinstance(classifier, Regression):
        return classifier.predict(features)
    return torch.from_numpy(classifier.predict(features.double().numpy()))
