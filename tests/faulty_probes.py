"""Probes with one planted fault each; the template is the honest one."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import torch

from fw.core.errors import Interrupted
from fw.core.job import Job
from fw.core.kinds import Probe
from fw.core.templates.probe import Example
from fw.core.types import Examples


class Nameless(Example):
    """Calls all its numbers the same, whatever it reads."""

    @property
    def keys(self) -> dict[str, str]:
        return {"accuracy": "higher"}


class Deaf(Example):
    """Does not look at the labels."""

    def score(self, train: Examples, test: Examples, job: Job) -> dict[str, float]:
        return dict.fromkeys(self.keys, 0.5)


class Greedy(Example):
    """Reports more than it promised."""

    def score(self, train: Examples, test: Examples, job: Job) -> dict[str, float]:
        return {**super().score(train, test, job), "more": 1.0}


class Moody(Example):
    """Draws from torch's global generator."""

    def score(self, train: Examples, test: Examples, job: Job) -> dict[str, float]:
        return {key: value * float(torch.rand(())) for key, value in super().score(train, test, job).items()}


class Vandal(Example):
    """Standardises in place."""

    def score(self, train: Examples, test: Examples, job: Job) -> dict[str, float]:
        train.features.sub_(train.features.mean(dim=0))
        return super().score(train, test, job)


class Stubborn(Example):
    """Goes on when it is asked to stop."""

    def score(self, train: Examples, test: Examples, job: Job) -> dict[str, float]:
        with contextlib.suppress(Interrupted):
            for _ in job.steps(4, {}, label="example"):
                pass
        return super().score(train, test, job)


class Ordered(Example):
    """Scores the first half of the held-out images alone."""

    def score(self, train: Examples, test: Examples, job: Job) -> dict[str, float]:
        half = (len(test) + 1) // 2
        noisy = test.features + 3 * torch.randn(test.features.shape, generator=job.generator("example"))
        labels = None if test.labels is None else test.labels[:half]
        return super().score(train, replace(test, features=noisy[:half], labels=labels), job)


class Proud(Example):
    """Divides by the chance level of the images it was shown, which may be all of one class."""

    def score(self, train: Examples, test: Examples, job: Job) -> dict[str, float]:
        assert train.labels is not None
        chance = 1 - (train.labels == train.labels[0]).double().mean()
        return {key: value / chance.item() for key, value in super().score(train, test, job).items()}


FAULTS: dict[type[Probe], str] = {
    Nameless: "have other keys: accuracy is also that of",
    Deaf: "better by the first key than the same labels shuffled",
    Greedy: "probe example: it scored example_p2.0_encoder, more and promised example_p2.0_encoder",
    Moody: "it draws from torch's global random generator",
    Vandal: "it writes into the features of the training images",
    Stubborn: "it goes on when job.steps or job.track stops it",
    Ordered: "in one order and",
    Proud: "one training image: it raised ZeroDivisionError",
}
