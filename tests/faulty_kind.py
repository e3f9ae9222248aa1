"""A kind that a plugin invented, and a component of it."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from pydantic import Field

from fw.registry import Component


class Blur(Component):
    """What is blurred, and how far."""

    kind: ClassVar[str] = "blur"

    @abstractmethod
    def radius_at(self, sigma: float) -> float:
        """The radius in pixels at a noise level."""


class Box(Blur):
    """The same radius at every noise level."""

    name: ClassVar[str] = "box"

    radius: float = Field(1.0, gt=0, description="in pixels")

    def radius_at(self, sigma: float) -> float:
        return self.radius
