"""Where a component looks up a name that comes without a registry: among installed components.

Registries are made of components, so a component cannot import them. This file states what a
component needs of a registry, and `fw.registry.discovery` puts its function `installed` here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol


class Names(Protocol):
    """What a component needs of a registry."""

    def get(self, kind: str, name: str) -> type[Any]:
        """The component class, or UnknownComponent."""

    def of_kind(self, kind: str) -> Sequence[type[Any]]:
        """The component classes of a kind, by name."""


installed: Callable[[], Names]
