"""Priors with one planted fault each, beside honest ones."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fw.core.errors import FwError, Interrupted
from fw.core.job import Job
from fw.core.kinds import Prior
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

    def state(self, mean: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {"mean": mean, "optimizer": optimizer}


class NoForms(Honest):
    """Draws nothing."""

    forms: ClassVar[frozenset[str]] = frozenset()


class UnknownForm(Honest):
    """Draws what fw does not know."""

    forms: ClassVar[frozenset[str]] = frozenset({"class", "sentence"})


class OutOfRange(Honest):
    """Counts classes from 1, and so draws one too many."""

    forms: ClassVar[frozenset[str]] = frozenset({"class"})

    def chosen(self, conditions: Tensor, draw: torch.Generator) -> Tensor:
        return super().chosen(conditions + 2, draw)


class InDoubles(Honest):
    """Vectors in double precision."""

    forms: ClassVar[frozenset[str]] = frozenset({"vector"})

    def chosen(self, conditions: Tensor, draw: torch.Generator) -> Tensor:
        return super().chosen(conditions.double(), draw)


class Flattens(Honest):
    """Makes one vector of an image's tokens."""

    def chosen(self, conditions: Tensor, draw: torch.Generator) -> Tensor:
        chosen = super().chosen(conditions, draw)
        return chosen.flatten(1) if chosen.dim() > 1 else chosen


class Empty(Honest):
    """Has nothing to draw from."""

    def chosen(self, conditions: Tensor, draw: torch.Generator) -> Tensor:
        return conditions[:0]


class NotANumber(Honest):
    """Divides by the number of empty classes."""

    forms: ClassVar[frozenset[str]] = frozenset({"vector"})

    def chosen(self, conditions: Tensor, draw: torch.Generator) -> Tensor:
        return super().chosen(conditions, draw) / 0


class ClassesOnly(Honest):
    """Says that it draws vectors, and counts them."""

    def chosen(self, conditions: Tensor, draw: torch.Generator) -> Tensor:
        return super().chosen(conditions.bincount().argsort(), draw)


class DrawsGlobally(Honest):
    """Draws from torch's global generator."""

    def chosen(self, conditions: Tensor, draw: torch.Generator) -> Tensor:
        return super().chosen(conditions, torch.default_generator)


class GoesOn(Honest):
    """Begins where it ended the last time."""

    calls: ClassVar[int] = 0

    def chosen(self, conditions: Tensor, draw: torch.Generator) -> Tensor:
        GoesOn.calls += 1
        return conditions.roll(GoesOn.calls, 0)


class HashOrdered(Honest):
    """Orders its bank by a set of strings."""

    def chosen(self, conditions: Tensor, draw: torch.Generator) -> Tensor:
        return conditions[torch.tensor([int(word[4:]) % len(conditions) for word in set(WORDS)])]


class ForgetsTheOptimizer(Learned):
    """Keeps the mean and not the momentum."""

    def state(self, mean: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {"mean": mean}


class CannotBeStopped(Learned):
    """Takes a request to stop for the end."""

    def bank(self, annotation: Annotation, job: Job) -> Tensor:
        try:
            return super().bank(annotation, job)
        except Interrupted:
            return annotation.conditions


class SortsInPlace(Honest):
    """Sorts the conditions that it is given."""

    def chosen(self, conditions: Tensor, draw: torch.Generator) -> Tensor:
        conditions.copy_(conditions.sort(dim=0).values)
        return super().chosen(conditions, draw)


class CentresTheBank(Honest):
    """Takes the mean away from the bank to score it."""

    def quality(self, bank: Tensor, annotation: Annotation) -> dict[str, float]:
        bank -= bank[0].clone()
        return {}


class CannotDoOne(Honest):
    """Needs a second condition."""

    def chosen(self, conditions: Tensor, draw: torch.Generator) -> Tensor:
        return super().chosen(conditions[1:], draw)


class UndefinedQuality(Honest):
    """Divides by a spread that may be 0."""

    def quality(self, bank: Tensor, annotation: Annotation) -> dict[str, float]:
        spread = annotation.conditions.double().std()
        return {"spread": float(bank.double().std() / spread)}


class TensorQuality(Honest):
    """Scores in tensors."""

    def quality(self, bank: Tensor, annotation: Annotation) -> dict[str, float]:
        return {"mean": bank.double().mean()}  # type: ignore[dict-item]


HONEST: list[Prior] = [Honest(), Choosy(), Learned()]

FORMS = "It names in `forms` which forms of condition it draws, at least one"
VALID = "bank() gives valid conditions, at least one, on the CPU, for every form that it draws"
SAME = "bank() gives the same for the same seed, whatever was done before and whatever global generators hold"
RESUMED = "A bank that is stopped half-way and continued in the same folder is the same"
QUALITY = "quality() gives finite numbers by name, for one condition, two conditions and equal conditions too"
UNTOUCHED = "bank() and quality() do not write into the annotation, nor quality() into the bank"

FAULTS: dict[type[Prior], str] = {
    NoForms: f"{FORMS}: it is empty",
    UnknownForm: f"{FORMS}: sentence is none",
    OutOfRange: f"{VALID}: prior honest: its bank are 3 to 5, not in 0..4",
    InDoubles: f"{VALID}: prior honest: its bank are torch.float64 (20, 6), not torch.float32 (N, 6)",
    Flattens: f"{VALID}: prior honest: its bank are torch.float32 (20, 18), not torch.float32 (N, 3, 6)",
    Empty: f"{VALID}: prior honest: its bank are empty",
    NotANumber: f"{VALID}: prior honest: its bank are not all finite",
    ClassesOnly: f"{VALID}: it raised NotImplementedError",
    DrawsGlobally: f"{SAME}: it draws from torch's global random generator",
    GoesOn: f"{SAME}: a second call gives another result",
    HashOrdered: "bank() gives the same in another process: class conditions are other ones",
    ForgetsTheOptimizer: f"{RESUMED}: vector conditions are other ones",
    CannotBeStopped: f"{RESUMED}: it goes on when job.steps or job.track stops it: let Interrupted out",
    SortsInPlace: f"{UNTOUCHED}: bank writes into the conditions",
    CentresTheBank: f"{UNTOUCHED}: quality writes into the bank",
    CannotDoOne: "One condition, two conditions and equal conditions give a valid bank or an FwError: one class",
    UndefinedQuality: f"{QUALITY}: one class condition: 'spread' is nan",
    TensorQuality: f"{QUALITY}: class conditions: 'mean' is a Tensor",
}
"""What the kit has to say about each."""
