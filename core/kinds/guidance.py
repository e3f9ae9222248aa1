"""Guidance modes: each makes a prediction that is worse. The rule that uses it is the same for
all."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import ClassVar, NamedTuple, Self

from pydantic import Field, field_validator
from torch import Tensor

from fw.core.kinds.backbone import Backbone
from fw.core.kinds.denoiser import Denoiser
from fw.core.kinds.interval import Interval, lowest_first
from fw.core.settings import Train
from fw.core.types import LARGEST, ConditionSpec
from fw.registry import Component


class Sibling(NamedTuple):
    """Another network that a guidance mode needs: what it is, how it is trained, and the relative
    width of its average, if that is chosen after training (`train.averages`)."""

    model: Backbone
    train: Train
    ema: float | None = None


class Steering(Component):
    """What the list `guidance` of an arm holds: modes (`Guidance`), which make a worse
    prediction, and rules (`Rule`), which change how the modes' differences are put together."""

    kind: ClassVar[str] = "guidance"

    def idle(self) -> str | None:
        """Why it changes no prediction with these fields, whatever the model says; None if it
        may change some."""
        return None


class Guidance(Steering):
    """Makes a worse prediction; the rule that uses it is the same for all modes:

    D_w = good + sum_i (scale_i - 1) * (good - worse_i)

    scale = 1 is off, costs no forward pass and is bit-exact. `interval` limits it to noise levels
    lo < sigma <= hi (arXiv 2404.07724).
    """

    evaluations: ClassVar[int] = 1
    """Network evaluations that one call of `worse` costs."""

    scale: float = Field(1.0, ge=0, le=LARGEST, description="guidance scale; 1 is off")
    interval: Interval = Field(None, description="noise levels (lo, hi] where it acts; null is all")
    _lowest_first = field_validator("interval")(lowest_first)

    @abstractmethod
    def worse(
        self, model: Denoiser, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor
    ) -> Tensor:
        """A worse prediction than `good` = D(x; sigma, condition), of the same shape.

        `model` is the arm's denoiser, or the sibling that the mode asked for.
        """

    def sibling(self, model: Backbone, train: Train) -> Sibling | None:
        """The network that `worse` gets in place of the arm's own, or None. It is trained in a
        stage of its own, on the same data and conditions. `model` and `train` are the arm's."""
        return None

    def check(self, condition: ConditionSpec | None) -> None:
        """Raise ValueError if it cannot guide with conditions of this form and number. Called
        before sampling, and also when a recipe is validated if they are known by then."""

    def check_layers(
        self, called: Callable[[], Mapping[str, int]], shape: tuple[int, int, int]
    ) -> None:
        """Raise ValueError if the network has no layers to act in; called when a recipe is
        validated.

        `called()` gives the layers that mix tokens through `attend` for images (C, H, W), in the
        order of their calls, and how many tokens each has. It is empty where that cannot be known
        without the real network.
        """

    def changes(self, called: Sequence[str]) -> Collection[str]:
        """The attention layers in which `worse` changes how tokens are mixed, out of all in the
        order of their calls: what comes before the first of them need not be computed again."""
        return ()

    def idle(self) -> str | None:
        return "scale 1 is off" if self.scale == 1 else None

    @property
    def names_classes(self) -> bool:
        """Whether it asks for a class of the data set by name."""
        return False

    def numbered(self, names: Sequence[str]) -> Self:
        """The same mode with numbers in the place of names, or ValueError if there is no such
        class. `names` are those of the data set in the order of their numbers; empty where its
        files are not there."""
        return self

    def active(self, sigma: float) -> bool:
        """Whether it changes predictions at this noise level; fw calls `worse` only then."""
        inside = self.interval is None or self.interval[0] < sigma <= self.interval[1]
        return self.scale != 1 and inside
