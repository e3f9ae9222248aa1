"""Guidance modes with one planted fault each, beside an honest twin; the contract kit has to tell them apart."""

from __future__ import annotations

import random
import time
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import ConfigDict, Field, PrivateAttr, field_serializer, field_validator
from torch import Tensor

from fw.core.kinds import Guidance

CALLS: list[float] = []


class Honest(Guidance):
    """Halves the prediction."""

    name: ClassVar[str] = "honest"
    evaluations: ClassVar[int] = 0

    strength: float = Field(0.5, gt=0, lt=1, description="what is taken away")

    def worse(self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor) -> Tensor:
        return (1 - self.strength) * good


class WrongShape(Honest):
    """Returns one number per image, which would broadcast."""

    def worse(self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor) -> Tensor:
        return good.mean(dim=(1, 2, 3), keepdim=True)


class NotANumber(Honest):
    """Divides zero by zero where the prediction is 0 or the noise is low."""

    def worse(self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor) -> Tensor:
        return good * (torch.zeros(()) / torch.zeros(()) if sigma < 0.05 else 0.5)


class DoublePrecision(Honest):
    """Changes the dtype."""

    def worse(self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor) -> Tensor:
        return good.double() / 2


class Idle(Honest):
    """Thinks that nothing is worse."""

    def worse(self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor) -> Tensor:
        return good


class Overpriced(Honest):
    """Says that it costs nothing and asks the network."""

    def worse(self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor) -> Tensor:
        return model(x, sigma, None)


class GlobalTorchNoise(Honest):
    """Draws from torch's global generator."""

    def worse(self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor) -> Tensor:
        return good + torch.randn_like(good)


class GlobalNumpyNoise(Honest):
    """Draws from numpy's global generator."""

    def worse(self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor) -> Tensor:
        return good * float(np.random.rand())  # noqa: NPY002


class GlobalPythonNoise(Honest):
    """Draws from Python's global generator."""

    def worse(self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor) -> Tensor:
        return good * random.random()


class ForkedNoise(Honest):
    """Puts the global generator back, and still depends on it."""

    def worse(self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            return good + torch.randn_like(good)


class Remembering(Honest):
    """Averages with what it saw before, in a private attribute."""

    _last: list[Tensor] = PrivateAttr(default_factory=list)

    def worse(self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor) -> Tensor:
        before = [last for last in self._last if last.shape == good.shape]
        self._last.append(good)
        return (before[-1] + good) / 2 if before else good / 2


class Counting(Honest):
    """Counts its calls in a list of the module."""

    def worse(self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor) -> Tensor:
        CALLS.append(sigma)
        return good / 2


class Annealing(Honest):
    """Fades out with the number of calls, counted in its class."""

    calls: ClassVar[int] = 0

    def worse(self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor) -> Tensor:
        type(self).calls += 1
        return good * (1 - 0.5 / self.calls)


class WritesIntoGood(Honest):
    """Works in place."""

    def worse(self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor) -> Tensor:
        return good.mul_(0.5)


class LeavesAHook(Honest):
    """Registers a forward hook and forgets it."""

    evaluations: ClassVar[int] = 1

    def worse(self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor) -> Tensor:
        model.network.register_forward_hook(lambda module, given, made: made * 0.9)
        return model(x, sigma, condition)


class MixesTheBatch(Honest):
    """Steers away from the batch's mean."""

    def worse(self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor) -> Tensor:
        return good.mean(dim=0, keepdim=True).expand_as(good).clone()


class TakesAnyScale(Honest):
    """Declares `scale` anew, without its bounds."""

    model_config = ConfigDict(allow_inf_nan=True)

    scale: float = 1.0


class DefaultDtype(Honest):
    """Changes torch's default dtype."""

    def worse(self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor) -> Tensor:
        torch.set_default_dtype(torch.float64)
        return good / 2


class Misspelled(Honest):
    """Has a typo."""

    def worse(self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor) -> Tensor:
        return goood / 2  # type: ignore[name-defined]  # noqa: F821


class Mute(Honest):
    __doc__ = ""


class LossySpec(Honest):
    """Rounds a field when it is written out."""

    @field_serializer("strength")
    def rounded(self, value: float) -> float:
        return round(value)


class Crashing(Honest):
    """A validator that raises something that pydantic does not take for an error of the user."""

    @field_validator("strength")
    @classmethod
    def known(cls, value: float) -> float:
        return {0.5: 0.5}[value]


class Thawed(Honest):
    """Is not frozen."""

    model_config = ConfigDict(frozen=False)


class Lenient(Honest):
    """Takes keys that it does not have."""

    model_config = ConfigDict(extra="ignore")


class TimeOfDay(Honest):
    """Its identity depends on when it is asked."""

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "at": time.time_ns()}


class HashOrder(Honest):
    """Its identity depends on the order of a set."""

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "words": list({f"word{number}" for number in range(20)})}


class ListOfNeeds(Honest):
    """Says what it requires as a list."""

    @property
    def requires(self) -> Any:
        return ["conditions"]


class RawPreflight(Honest):
    """Lets an OSError out of preflight."""

    def preflight(self) -> None:
        raise FileNotFoundError("weights.pt")


FAULTS: dict[type[Guidance], str] = {
    WrongShape: "worse() returns a finite prediction of the shape, dtype and device of the good one: guidance honest",
    NotANumber: "worse() returns a finite prediction of the shape, dtype and device of the good one: 64 of 64 values",
    DoublePrecision: "a finite prediction of the shape, dtype and device of the good one: torch.float64",
    Idle: "At another scale it changes the prediction, inside its interval",
    Overpriced: "One call of worse() evaluates the network as often as `evaluations` says: 1 times, not 0",
    GlobalTorchNoise: "it changed torch's global random generator",
    GlobalNumpyNoise: "it draws from numpy's global random generator",
    GlobalPythonNoise: "it draws from Python's global random generator",
    ForkedNoise: "a second call gives another result",
    Remembering: "it changed its own _last",
    Counting: "it changed faulty_guidance.CALLS",
    Annealing: "it changed Annealing.calls",
    WritesIntoGood: "it writes into good",
    LeavesAHook: "After worse() the network is what it was: the next prediction is another one",
    MixesTheBatch: "Each image's result is its own, whatever else is in the batch: alone and in a batch differ by",
    TakesAnyScale: "A scale that is negative or not finite, and an interval that is upside down, are refused",
    DefaultDtype: "it changed torch's default dtype",
    Mute: "It has a docstring, which `fw plugins` shows: there is none",
    LossySpec: "Written out as JSON and read back, it is the same component",
    Crashing: "Fields drawn from their types and bounds give a component that can be stored, or are refused in words",
    Thawed: "Thawed changes model_config's frozen",
    Lenient: "Lenient changes model_config's extra",
    TimeOfDay: "Its key is the same in another process: keys differ",
    HashOrder: "Its key is the same in another process: keys differ",
    ListOfNeeds: "What it requires and provides are sets of words: ['conditions'] is not a frozenset",
    RawPreflight: "What preflight raises is an FwError, in one sentence: it raised FileNotFoundError",
}
