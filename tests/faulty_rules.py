"""Rules with one planted fault each, beside two honest ones; the contract kit has to tell them apart."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

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
        return guided.clamp(good.amin(dim=(1, 2, 3), keepdim=True), good.amax(dim=(1, 2, 3), keepdim=True))


class Silent(Rule):
    """Overrides nothing."""

    name: ClassVar[str] = "silent"


class OneNumber(Honest):
    """Returns one number per image, which would broadcast."""

    def direction(self, good: Tensor, difference: Tensor, memory: dict[str, Tensor]) -> Tensor:
        return difference.mean(dim=(1, 2, 3), keepdim=True)


class DoublePrecision(Honest):
    """Changes the dtype."""

    def result(self, good: Tensor, guided: Tensor) -> Tensor:
        return guided.double()


class Overflows(Honest):
    """Takes the exponential of what may be large."""

    def direction(self, good: Tensor, difference: Tensor, memory: dict[str, Tensor]) -> Tensor:
        return difference * difference.abs().exp()


class DividesByZero(Honest):
    """Divides by the length of the difference, which may be zero."""

    def direction(self, good: Tensor, difference: Tensor, memory: dict[str, Tensor]) -> Tensor:
        return difference / difference.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()


class DividesByTheDeviation(HonestClamp):
    """Divides by the standard deviation of the guided prediction, which may be zero."""

    def result(self, good: Tensor, guided: Tensor) -> Tensor:
        return guided * (good.std(dim=(1, 2, 3), keepdim=True) / guided.std(dim=(1, 2, 3), keepdim=True))


class Brightens(Honest):
    """Makes something of equal predictions."""

    def direction(self, good: Tensor, difference: Tensor, memory: dict[str, Tensor]) -> Tensor:
        return difference + 0.01


class Shrinks(HonestClamp):
    """Takes contrast from the good prediction itself."""

    def result(self, good: Tensor, guided: Tensor) -> Tensor:
        return 0.9 * guided


class Remembering(Honest):
    """Remembers in a private attribute."""

    _last: list[Tensor] = PrivateAttr(default_factory=list)

    def direction(self, good: Tensor, difference: Tensor, memory: dict[str, Tensor]) -> Tensor:
        before = [last for last in self._last if last.shape == difference.shape]
        self._last.append(difference)
        return difference + 0.5 * before[-1] if before else difference


class RememberingInTheModule(Honest):
    """Remembers the last prediction in a list of the module, and uses it for results."""

    def result(self, good: Tensor, guided: Tensor) -> Tensor:
        before = [last for last in SEEN if last.shape == good.shape]
        SEEN[:] = [good]
        return guided + 0.1 * (good - before[-1]) if before else guided


class Noisy(Honest):
    """Draws from torch's global generator."""

    def direction(self, good: Tensor, difference: Tensor, memory: dict[str, Tensor]) -> Tensor:
        return difference * torch.rand(())


class WritesIntoTheDifference(Honest):
    """Works in place."""

    def direction(self, good: Tensor, difference: Tensor, memory: dict[str, Tensor]) -> Tensor:
        return difference.mul_(0.5)


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


class MixesTheBatch(Honest):
    """Bounds the length of the whole batch."""

    def direction(self, good: Tensor, difference: Tensor, memory: dict[str, Tensor]) -> Tensor:
        return difference * (2.0 / difference.norm()).clamp(max=1)


class MixesTheResults(HonestClamp):
    """Clamps to the range of the whole batch."""

    def result(self, good: Tensor, guided: Tensor) -> Tensor:
        return guided.clamp(good.min(), good.max())


FAULTS: dict[type[Rule], tuple[Clause, str]] = {
    Silent: (rule.says_something, "it has neither"),
    OneNumber: (rule.right_shape, "guidance honest: it returned torch.float32"),
    DoublePrecision: (rule.right_shape, "result() gives torch.float64"),
    Overflows: (rule.right_shape, "values that are not finite"),
    DividesByZero: (rule.nothing_comes_of_nothing, "a difference of zero becomes up to nan"),
    DividesByTheDeviation: (rule.nothing_comes_of_nothing, "predictions of zero: result(good, good) is nan off"),
    Brightens: (rule.nothing_comes_of_nothing, "a difference of zero becomes up to 0.01"),
    Shrinks: (rule.nothing_comes_of_nothing, "usual predictions: result(good, good) is"),
    Remembering: (rule.pure, "what was asked before changes the result"),
    RememberingInTheModule: (rule.pure, "what was asked before changes the result"),
    Noisy: (rule.pure, "it draws from torch's global random generator"),
    WritesIntoTheDifference: (rule.pure, "it writes into what it is given"),
    WritesIntoWhatItReturned: (rule.pure, "it writes into what it returned before"),
    CountsLevels: (rule.memory_holds_tensors, "level is a int"),
    KnowsTheMemoryItself: (rule.memory_holds_tensors, "at level 2 the same memory gives something else"),
    MixesTheBatch: (rule.batch_does_not_matter, "direction(): alone and in a batch differ by"),
    MixesTheResults: (rule.batch_does_not_matter, "result(): alone and in a batch differ by"),
}
