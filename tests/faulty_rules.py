"""Rules with one planted fault each, beside two honest ones; the contract kit has to tell them
apart."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor
from variants import variants

from fw.core.kinds import Rule
from fw.core.testing import Clause, rule

SEEN: list[Tensor] = []


class Honest(Rule):
    """Averages differences over noise levels."""

    name: ClassVar[str] = "honest"

    kept: float = Field(0.5, ge=0, lt=1, description="share of the last average that is kept")

    def direction(self, good: Tensor, difference: Tensor, memory: dict[str, Tensor]) -> Tensor:
        last = memory.get("average", torch.zeros_like(difference))
        memory["average"] = difference + self.kept * last
        return memory["average"]


class HonestClamp(Rule):
    """Keeps the result in the range of the good prediction."""

    name: ClassVar[str] = "honest_clamp"

    def result(self, good: Tensor, guided: Tensor) -> Tensor:
        return guided.clamp(
            good.amin(dim=(1, 2, 3), keepdim=True), good.amax(dim=(1, 2, 3), keepdim=True)
        )


class Silent(Rule):
    """Overrides nothing."""

    name: ClassVar[str] = "silent"


EACH = {"dim": (1, 2, 3), "keepdim": True}
"""Over the pixels of each image."""

variants(
    Honest,
    "direction",
    OneNumber=lambda self, good, difference, memory: difference.mean(**EACH),
    Overflows=lambda self, good, difference, memory: difference * difference.abs().exp(),
    DividesByZero=lambda self, good, difference, memory: (
        difference / difference.square().sum(**EACH).sqrt()
    ),
    Brightens=lambda self, good, difference, memory: difference + 0.01,
    Noisy=lambda self, good, difference, memory: difference * torch.rand(()),
    WritesIntoTheDifference=lambda self, good, difference, memory: difference.mul_(0.5),
    MixesTheBatch=lambda self, good, difference, memory: (
        difference * (2 / difference.norm()).clamp(max=1)
    ),
)
variants(Honest, "result", DoublePrecision=lambda self, good, guided: guided.double())
variants(
    HonestClamp,
    "result",
    DividesByTheDeviation=lambda self, good, guided: (
        guided * (good.std(**EACH) / guided.std(**EACH))
    ),
    Shrinks=lambda self, good, guided: 0.9 * guided,
    MixesTheResults=lambda self, good, guided: guided.clamp(good.min(), good.max()),
)
variants(Honest, "idle", SaysItIsIdle=lambda self: "it keeps nothing")


class Remembering(Honest):
    """Remembers in a private attribute."""

    _last: list[Tensor] = PrivateAttr(default_factory=list)

    def direction(self, good: Tensor, difference: Tensor, memory: dict[str, Tensor]) -> Tensor:
        before = [last for last in self._last if last.shape == difference.shape]
        self._last.append(difference)
        return difference + 0.5 * before[-1] if before else difference


class RememberingInTheModule(Honest):
    """Remembers the last prediction in a list of the module; results depend on whether it has
    the same shape."""

    def result(self, good: Tensor, guided: Tensor) -> Tensor:
        before = [last for last in SEEN if last.shape == good.shape]
        SEEN[:] = [good]
        return guided + 0.1 if before else guided


class WritesIntoWhatItReturned(Honest):
    """Updates its average in place, which it returned at the last level."""

    def direction(self, good: Tensor, difference: Tensor, memory: dict[str, Tensor]) -> Tensor:
        if "average" in memory:
            memory["average"].mul_(self.kept).add_(difference)
        else:
            memory["average"] = difference.clone()
        return memory["average"]


class CountsLevels(Honest):
    """Remembers a number that is not a tensor."""

    def direction(self, good: Tensor, difference: Tensor, memory: dict[str, Tensor]) -> Tensor:
        memory["level"] = memory.get("level", 0) + 1  # type: ignore[assignment]
        return difference / memory["level"]


class KnowsTheMemoryItself(Honest):
    """Looks whether it was given the same dictionary before, not at what is in it."""

    _known: ClassVar[tuple[int, ...]] = ()

    def direction(self, good: Tensor, difference: Tensor, memory: dict[str, Tensor]) -> Tensor:
        again = id(memory) in self._known
        type(self)._known = (id(memory),)
        return difference / 2 if again else difference


FAULTS: dict[str, tuple[Clause, str]] = {
    "Silent": (rule.says_something, "it has neither"),
    "OneNumber": (rule.right_shape, "guidance honest: "),
    "DoublePrecision": (rule.right_shape, "result() is torch.float64"),
    "Overflows": (rule.right_shape, "not finite"),
    "DividesByZero": (rule.nothing_comes_of_nothing, "becomes up to nan"),
    "DividesByTheDeviation": (rule.nothing_comes_of_nothing, "predictions of zero: "),
    "Brightens": (rule.nothing_comes_of_nothing, "becomes up to 0.01"),
    "Shrinks": (rule.nothing_comes_of_nothing, "usual predictions: result(good, good)"),
    "SaysItIsIdle": (
        rule.idle_changes_nothing,
        "direction() changes it, and idle() says 'it keeps nothing'",
    ),
    "Remembering": (rule.pure, "changes the result"),
    "RememberingInTheModule": (rule.pure, "changes the result"),
    "Noisy": (rule.pure, "torch's global random generator"),
    "WritesIntoTheDifference": (rule.pure, "it writes into what it is given"),
    "WritesIntoWhatItReturned": (rule.pure, "it writes into what it returned before"),
    "CountsLevels": (rule.memory_holds_tensors, "level is a int"),
    "KnowsTheMemoryItself": (rule.memory_holds_tensors, "at level 2"),
    "MixesTheBatch": (rule.batch_does_not_matter, "direction() at level 1"),
    "MixesTheResults": (rule.batch_does_not_matter, "result() at level 1"),
}
"""The clause that a fault breaks, and what is said of it."""
