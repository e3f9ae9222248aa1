"""Probes with one planted fault each; the template is the honest one."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from variants import variants

from fw.core.errors import Interrupted
from fw.core.job import Job
from fw.core.templates.probe import Example
from fw.core.testing import Clause, probe
from fw.core.types import Examples


class Honest(Example):
    """The template."""


def score(self: Any, train: Examples, test: Examples, job: Job) -> dict[str, float]:
    return Honest.score(self, train, test, job)


def stubborn(self: Any, train: Examples, test: Examples, job: Job) -> dict[str, float]:
    """Goes on when it is asked to stop."""
    with contextlib.suppress(Interrupted):
        for _ in job.steps(4, {}, label="example"):
            pass
    return score(self, train, test, job)


def ordered(self: Any, train: Examples, test: Examples, job: Job) -> dict[str, float]:
    """Scores what the first held-out image is like."""
    first = test.features[0].flatten()[0]
    return {next(iter(self.keys)): float(first.double().sigmoid())}


def in_place(self: Any, train: Examples, test: Examples, job: Job) -> dict[str, float]:
    train.features.sub_(train.features.mean(dim=0))
    return score(self, train, test, job)


def times(scores: dict[str, float], factor: float) -> dict[str, float]:
    return {key: value * factor for key, value in scores.items()}


def over_chance(scores: dict[str, float], labels: Any) -> dict[str, float]:
    """Of images which may be all of one class."""
    return times(scores, 1 / (1 - (labels == labels[0]).double().mean()).item())


variants(Honest, "keys", Nameless=lambda self: {"accuracy": "higher"})
variants(
    Honest,
    "score",
    Deaf=lambda self, train, test, job: dict.fromkeys(self.keys, 0.5),
    Greedy=lambda self, train, test, job: {**score(self, train, test, job), "more": 1.0},
    Moody=lambda self, train, test, job: times(
        score(self, train, test, job), float(torch.rand(()))
    ),
    Vandal=in_place,
    Stubborn=stubborn,
    Ordered=ordered,
    Proud=lambda self, train, test, job: over_chance(score(self, train, test, job), train.labels),
)

FAULTS: dict[str, tuple[Clause, str]] = {
    "Nameless": (probe.keys_name_what_is_read, "accuracy"),
    "Deaf": (probe.labels_are_read, "shuffled"),
    "Greedy": (probe.scores_as_promised, "probe example: it scored example_p2.0_encoder, more"),
    "Moody": (probe.function_of_the_seed, "torch's global random generator"),
    "Vandal": (probe.inputs_untouched, "the features of the training images"),
    "Stubborn": (probe.resumes, "let Interrupted out"),
    "Ordered": (probe.order_does_not_matter, "in another"),
    "Proud": (probe.odd_inputs, "one training image: it raised ZeroDivisionError"),
}
"""The clause that a fault breaks, and what is said of it."""
