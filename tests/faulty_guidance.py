"""Guidance modes with one planted fault each, beside an honest twin; the contract kit has to
tell them apart."""

from __future__ import annotations

import random
import time
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import ConfigDict, Field, PrivateAttr, field_serializer, field_validator
from torch import Tensor
from variants import variants

from fw.core.kinds import Guidance
from fw.core.testing import Clause, common, guidance

CALLS: list[float] = []


class Honest(Guidance):
    """Halves the prediction."""

    name: ClassVar[str] = "honest"
    evaluations: ClassVar[int] = 0

    strength: float = Field(0.5, gt=0, lt=1, description="what is taken away")

    def worse(
        self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor
    ) -> Tensor:
        return (1 - self.strength) * self.changed(model, x, sigma, condition, good)

    def changed(
        self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor
    ) -> Tensor:
        return good


def forked(draw: Any) -> Any:
    """What is drawn, with the global generator put back."""
    with torch.random.fork_rng(devices=[]):
        return draw()


def counted(sigma: float, good: Tensor) -> Tensor:
    CALLS.append(sigma)
    return good


def in_doubles(good: Tensor) -> Tensor:
    torch.set_default_dtype(torch.float64)
    return good


variants(
    Honest,
    "changed",
    WrongShape=lambda self, model, x, sigma, c, good: good.mean(dim=(1, 2, 3), keepdim=True),
    NotANumber=lambda self, model, x, sigma, c, good: (
        good * torch.zeros(()) / (torch.zeros(()) if sigma < 0.05 else 1)
    ),
    DoublePrecision=lambda self, model, x, sigma, c, good: good.double(),
    Overpriced=lambda self, model, x, sigma, c, good: model(x, sigma, None),
    GlobalTorchNoise=lambda self, model, x, sigma, c, good: good + torch.randn_like(good),
    GlobalNumpyNoise=lambda self, model, x, sigma, c, good: good * float(np.random.rand()),  # noqa: NPY002
    GlobalPythonNoise=lambda self, model, x, sigma, c, good: good * random.random(),
    ForkedNoise=lambda self, model, x, sigma, c, good: (
        good + forked(lambda: torch.randn_like(good))
    ),
    Counting=lambda self, model, x, sigma, c, good: counted(sigma, good),
    WritesIntoGood=lambda self, model, x, sigma, c, good: good.mul_(0.5),
    MixesTheBatch=lambda self, model, x, sigma, c, good: good.mean(dim=0, keepdim=True).expand_as(
        good
    ),
    DefaultDtype=lambda self, model, x, sigma, c, good: in_doubles(good),
)
variants(Honest, "worse", Idle=lambda self, model, x, sigma, c, good: good)
variants(Honest, "idle", SaysItIsIdle=lambda self: "it is off")
variants(Honest, "__doc__", Mute="")
variants(
    Honest, "model_config", Thawed=ConfigDict(frozen=False), Lenient=ConfigDict(extra="ignore")
)
variants(Honest, "requires", ListOfNeeds=lambda self: ["conditions"])
variants(
    Honest,
    "identity",
    TimeOfDay=lambda self: {**Guidance.identity(self), "at": time.time_ns()},
    HashOrder=lambda self: {
        **Guidance.identity(self),
        "words": list({f"word{n}" for n in range(20)}),
    },
)


class Remembering(Honest):
    """Averages with what it saw before, in a private attribute."""

    _last: list[Tensor] = PrivateAttr(default_factory=list)

    def changed(
        self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor
    ) -> Tensor:
        before = [last for last in self._last if last.shape == good.shape]
        self._last.append(good)
        return before[-1] + good if before else good


class Annealing(Honest):
    """Fades out with the number of calls, counted in its class."""

    calls: ClassVar[int] = 0

    def changed(
        self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor
    ) -> Tensor:
        type(self).calls += 1
        return good * (1 + 1 / self.calls)


class LeavesAHook(Honest):
    """Registers a forward hook and forgets it."""

    evaluations: ClassVar[int] = 1

    def changed(
        self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor
    ) -> Tensor:
        model.network.register_forward_hook(lambda module, given, made: made * 0.9)
        return model(x, sigma, condition)


class TakesAnyScale(Honest):
    """Declares `scale` anew, without its bounds."""

    model_config = ConfigDict(allow_inf_nan=True)

    scale: float = 1.0


class Misspelled(Honest):
    """Has a typo."""

    def worse(
        self, model: Any, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor
    ) -> Tensor:
        return goood / 2  # type: ignore[name-defined]  # noqa: F821


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


class WordOfMouth(Honest):
    """Says what supervised its weights in a word of its own."""

    @property
    def own_supervision(self) -> Any:
        return "hardly any"


class RawPreflight(Honest):
    """Lets an OSError out of preflight."""

    def preflight(self) -> None:
        raise FileNotFoundError("weights.pt")


FAULTS: dict[str, tuple[Clause, str]] = {
    "WrongShape": (guidance.right_shape, "guidance honest: "),
    "NotANumber": (guidance.right_shape, "64 of 64 values"),
    "DoublePrecision": (guidance.right_shape, "torch.float64"),
    "Idle": (guidance.guidance_acts, "worse()"),
    "SaysItIsIdle": (guidance.idle_changes_nothing, "'it is off'"),
    "Overpriced": (guidance.price_is_stated, "1 times, not 0"),
    "GlobalTorchNoise": (guidance.right_shape, "it changed torch's global random generator"),
    "GlobalNumpyNoise": (guidance.pure, "numpy's global random generator"),
    "GlobalPythonNoise": (guidance.pure, "Python's global random generator"),
    "ForkedNoise": (guidance.pure, "a second call"),
    "Remembering": (guidance.right_shape, "it changed its own _last"),
    "Counting": (guidance.right_shape, "it changed faulty_guidance.CALLS"),
    "Annealing": (guidance.right_shape, "it changed Annealing.calls"),
    "WritesIntoGood": (guidance.pure, "it writes into good"),
    "LeavesAHook": (guidance.nothing_left_behind, "the next prediction"),
    "MixesTheBatch": (guidance.batch_does_not_matter, "images [0] of 4"),
    "TakesAnyScale": (guidance.bad_scales_are_refused, "{'scale': -1.0}"),
    "DefaultDtype": (guidance.right_shape, "it changed torch's default dtype"),
    "Mute": (common.explained, ""),
    "LossySpec": (common.spec_round_trips, ""),
    "Crashing": (common.fields_are_checked, "KeyError"),
    "Thawed": (common.fit_for_recipes, "Thawed changes model_config's frozen"),
    "Lenient": (common.fit_for_recipes, "Lenient changes model_config's extra"),
    "TimeOfDay": (common.same_key_elsewhere, "keys differ"),
    "HashOrder": (common.same_key_elsewhere, "keys differ"),
    "ListOfNeeds": (common.capabilities_are_words, "['conditions'] is not a frozenset"),
    "WordOfMouth": (common.supervision_is_said, "'hardly any'"),
    "RawPreflight": (common.preflight_speaks, "FileNotFoundError"),
}
"""The clause that a fault breaks, and what is said of it."""
