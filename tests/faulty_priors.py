"""Priors with one planted fault each, beside honest ones."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from variants import variants

from fw.core.errors import FwError, Interrupted
from fw.core.job import Job
from fw.core.kinds import Prior
from fw.core.testing import Clause, prior
from fw.core.types import Annotation

WORDS = [f"word{number}" for number in range(40)]


class Honest(Prior):
    """Conditions of random training images, of every form."""

    name: ClassVar[str] = "honest"

    count: int = Field(20, ge=1, le=1000, description="conditions that are drawn")

    def bank(self, annotation: Annotation, job: Job) -> Tensor:
        return self.chosen(annotation.conditions, job.generator("honest"))

    def chosen(self, conditions: Tensor, draw: torch.Generator) -> Tensor:
        return conditions[torch.randint(len(conditions), (self.count,), generator=draw)]

    def quality(self, bank: Tensor, annotation: Annotation) -> dict[str, float]:
        return {"mean": float(bank.double().mean())}


class Choosy(Honest):
    """Learns from many conditions only, and says so; honest, too."""

    def bank(self, annotation: Annotation, job: Job) -> Tensor:
        if len(annotation.conditions) < 100:
            raise FwError("prior honest learns from 100 conditions or more")
        return super().bank(annotation, job)


class Learned(Honest):
    """The mean of the vectors, by gradient descent with momentum; honest, too."""

    forms: ClassVar[frozenset[str]] = frozenset({"vector"})

    def bank(self, annotation: Annotation, job: Job) -> Tensor:
        mean = nn.ParameterList([torch.zeros(annotation.conditions.shape[1])])
        optimizer = torch.optim.SGD(mean.parameters(), lr=0.1, momentum=0.9)
        for _ in job.steps(6, self.state(mean, optimizer), label="mean"):
            optimizer.zero_grad()
            (annotation.conditions - mean[0]).square().mean().backward()
            optimizer.step()
        return mean[0].detach()[None]

    def state(
        self, mean: nn.Module, optimizer: torch.optim.Optimizer
    ) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {"mean": mean, "optimizer": optimizer}


class Vectors(Honest):
    forms: ClassVar[frozenset[str]] = frozenset({"vector"})


class Classes(Honest):
    forms: ClassVar[frozenset[str]] = frozenset({"class"})


class GoesOn(Honest):
    """Begins where it ended the last time."""

    calls: ClassVar[int] = 0

    def chosen(self, conditions: Tensor, draw: torch.Generator) -> Tensor:
        GoesOn.calls += 1
        return conditions.roll(GoesOn.calls, 0)


def chosen(self: Any, conditions: Tensor, draw: torch.Generator) -> Tensor:
    return Honest.chosen(self, conditions, draw)


def stopped(self: Any, annotation: Annotation, job: Job) -> Tensor:
    """Takes a request to stop for the end."""
    try:
        return Learned.bank(self, annotation, job)
    except Interrupted:
        return annotation.conditions


def spread(conditions: Tensor) -> Tensor:
    return conditions.double().std()


variants(Honest, "forms", NoForms=frozenset(), UnknownForm=frozenset({"class", "sentence"}))
variants(Classes, "chosen", OutOfRange=lambda self, given, draw: chosen(self, given + 2, draw))
variants(
    Vectors,
    "chosen",
    InDoubles=lambda self, given, draw: chosen(self, given.double(), draw),
    NotANumber=lambda self, given, draw: chosen(self, given, draw) / 0,
)
variants(
    Honest,
    "chosen",
    Flattens=lambda self, given, draw: chosen(self, given, draw).flatten(min(1, given.dim() - 1)),
    Empty=lambda self, given, draw: given[:0],
    ClassesOnly=lambda self, given, draw: chosen(self, given.bincount().argsort(), draw),
    DrawsGlobally=lambda self, given, draw: chosen(self, given, torch.default_generator),
    HashOrdered=lambda self, given, draw: given[
        [int(word[4:]) % len(given) for word in set(WORDS)]
    ],
    SortsInPlace=lambda self, given, draw: chosen(
        self, given.copy_(given.sort(dim=0).values), draw
    ),
    CannotDoOne=lambda self, given, draw: chosen(self, given[1:], draw),
)
variants(Learned, "state", ForgetsTheOptimizer=lambda self, mean, optimizer: {"mean": mean})
variants(Learned, "bank", CannotBeStopped=stopped)
variants(
    Honest,
    "quality",
    CentresTheBank=lambda self, bank, given: {"zero": float(bank.sub_(bank[0].clone()).sum() * 0)},
    UndefinedQuality=lambda self, bank, given: {
        "spread": float(spread(bank) / spread(given.conditions))
    },
    TensorQuality=lambda self, bank, given: {"mean": bank.double().mean()},
)


HONEST: list[Prior] = [Honest(), Choosy(), Learned()]

FAULTS: dict[str, tuple[Clause, str]] = {
    "NoForms": (prior.known_forms, "it is empty"),
    "UnknownForm": (prior.known_forms, "sentence"),
    "OutOfRange": (prior.valid, "prior honest: its bank are 3 to 5, not in 0..4"),
    "InDoubles": (prior.valid, "bank are torch.float64 (20, 6)"),
    "Flattens": (prior.valid, "bank are torch.float32 (20, 18)"),
    "Empty": (prior.valid, "bank are empty"),
    "NotANumber": (prior.valid, "not all finite"),
    "ClassesOnly": (prior.valid, "NotImplementedError"),
    "DrawsGlobally": (prior.function_of_the_seed, "torch's global random generator"),
    "GoesOn": (prior.function_of_the_seed, "a second call"),
    "HashOrdered": (prior.same_elsewhere, "class conditions"),
    "ForgetsTheOptimizer": (prior.resumes, "vector conditions"),
    "CannotBeStopped": (prior.resumes, "let Interrupted out"),
    "SortsInPlace": (prior.inputs_untouched, "bank writes into the conditions"),
    "CentresTheBank": (prior.inputs_untouched, "quality writes into the bank"),
    "CannotDoOne": (prior.odd_inputs, "one class"),
    "UndefinedQuality": (prior.quality_is_numbers, "one class condition: 'spread' is nan"),
    "TensorQuality": (prior.quality_is_numbers, "class conditions: 'mean' is a Tensor"),
}
"""The clause that a fault breaks, and what is said of it."""
