"""Logistic regression on standardised features, by sklearn: a linear probe."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from fw.core.errors import StageFailed


def linear_probe(features: Tensor, labels: Tensor, C: float = 1.0, iterations: int = 300) -> Any:
    """sklearn's classifier, fitted to features (N, D) and their labels (N,).

    `C` is the inverse strength of the penalty. There is no warning if `iterations` were too few.
    StageFailed if all labels are of one class.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(labels.unique()) < 2:
        lacking = "labels of one class alone: nothing to tell apart"
        raise StageFailed(f"a linear probe is to be fitted on {lacking}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=iterations))
        return classifier.fit(features.double().numpy(), labels.numpy())


def accuracy_of(classifier: Any, features: Tensor, labels: Tensor) -> float:
    """The share of labels (N,) that sklearn's classifier predicts from features (N, D)."""
    predicted = torch.from_numpy(classifier.predict(features.double().numpy()))
    return float((predicted == labels).double().mean())
