"""A linear classifier on frozen features, by sklearn, also on few labels (as in SimCLR, arXiv
2002.05709, table 7)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor

from fw.core.errors import StageFailed
from fw.core.features.logistic import accuracy_of, linear_probe
from fw.core.job import Job
from fw.core.kinds import FeatureProbe
from fw.core.types import Examples
from fw.plugins.probes.labels import labels_of, stratified

STRENGTHS = (0.01, 0.1, 1.0, 10.0)
"""Inverse strengths of the penalty, C, from which the best on a validation split is taken."""

VALIDATION = 0.2
"""The share of the labelled training images that choose C."""

ITERATIONS = 1000


class LinearProbe(FeatureProbe):
    """Accuracy of logistic regression on standardised features; C is chosen on a fifth of the
    labelled training images.

    `shares` below 1 withhold labels, of each class as many, and give few-label curves: `shares:
    [0.01, 0.1, 1]`.
    """

    name: ClassVar[str] = "linear"
    least_classes: ClassVar[int] = 2

    shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (1.0,),
        min_length=1,
        description="shares of the training images whose labels it is shown, one score each",
    )

    @field_validator("shares")
    @classmethod
    def _each_once(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(map(percent, shares))) < len(shares):
            raise ValueError(f"a share is listed twice in {list(shares)}")
        return shares

    @property
    def withholds_labels(self) -> bool:
        return min(self.shares) < 1

    def caution(self, images: int, classes: int) -> str | None:
        few = [share for share in self.shares if share * images < classes]
        if not few:
            return None
        told = " and ".join(f"{share:g}" for share in few)
        return (
            f"shares {told} of {images:,} images in {classes} classes are less than one of each: "
            f"the probe is shown one of each, {classes} labels"
        )

    @property
    def keys(self) -> Mapping[str, str]:
        return {self._key(share): "higher" for share in self.shares}

    def _key(self, share: float) -> str:
        few = "" if share == 1 else f"_{percent(share)}pct"
        return f"linear_sk{few}_{self.protocol}"

    def score(self, train: Examples, test: Examples, job: Job) -> dict[str, float]:
        found = {}
        for share in job.track(self.shares, "fit"):
            chosen = stratified(labels_of(train), share, job.generator("share"))
            classifier = fitted(train.features, labels_of(train), chosen, job)
            found[self._key(share)] = accuracy_of(classifier, test.features, labels_of(test))
        return found


def percent(share: float) -> str:
    """`1` for 0.01, `0.5` for 0.005."""
    return f"{100 * share:.10g}"


def fitted(features: Tensor, labels: Tensor, places: Tensor, job: Job) -> Any:
    """The classifier of features (N, D) and labels (N,) at these places (n,), with the C that does
    best on the validation split.

    Classes with one label have none to validate with; where that leaves fewer than two classes to
    fit, C is 1.
    """
    if len(labels[places].unique()) < 2:
        raise StageFailed("probe linear: labels of one class alone leave nothing to tell apart")

    def fit(some: Tensor, strength: float) -> Any:
        steps = iter(job.track(range(ITERATIONS), f"fit C={strength:g}"))
        after = partial(next, steps, None)
        return linear_probe(features, labels, strength, ITERATIONS, some, job.device, after)

    held = validation(labels[places], job)
    inside = torch.ones(len(places), dtype=torch.bool).index_fill(0, held, False)
    if not len(held):
        return fit(places, 1.0)

    def validated(strength: float) -> float:
        return accuracy_of(fit(places[inside], strength), features, labels, places[held])

    best = max(STRENGTHS, key=validated)  # the first, of equals: the strongest penalty
    return fit(places, best)


def validation(labels: Tensor, job: Job) -> Tensor:
    """The places that choose C: a share of each class that has more than one label."""
    often = labels.bincount()[labels] > 1
    if not often.any():
        return torch.empty(0, dtype=torch.int64)
    places = often.nonzero().flatten()
    return places[stratified(labels[places], VALIDATION, job.generator("validation"))]
