"""A network architecture."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import nn

from fw.core.types import ConditionSpec
from fw.registry import UNKNOWN, Component, Supervision


class Backbone(Component):
    """A network architecture."""

    kind: ClassVar[str] = "backbone"
    conditions: ClassVar[frozenset[str]] = frozenset({"class", "vector"})
    """The forms of condition that the network can take."""
    pretrained: ClassVar[bool] = False
    """Whether `build` returns a network that was trained before, elsewhere."""
    augmentation_size: ClassVar[int] = 0
    """How many numbers say to the network how its image was transformed (`train.augment`): 0 if it
    takes none, or 9. Then `build` returns an `Augmentable`."""

    @property
    def own_supervision(self) -> Supervision:
        return UNKNOWN if self.pretrained else super().own_supervision

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise ValueError if the network cannot take images (C, H, W); called when a recipe is
        validated."""

    @abstractmethod
    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        """A fresh `Network` for images (C, H, W); `condition` None builds an unconditional one."""
