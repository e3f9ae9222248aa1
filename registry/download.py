"""What a component needs from outside this machine, as `fw fetch` lists and brings it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Advance = Callable[[int], None]
"""Is called with the number of bytes that have come since the last call."""


@dataclass(frozen=True)
class Download(ABC):
    """One thing that can be fetched. To make one, and to ask whether it is there, opens no
    connection."""

    what: str
    """In a few words, such as `CIFAR-10`."""
    source: str
    """The web address that it comes from."""
    place: Path
    """The file or folder that it becomes."""

    @abstractmethod
    def there(self) -> bool:
        """Whether it need not be fetched."""

    @abstractmethod
    def size(self) -> int | None:
        """Its bytes, which the server may be asked for; None if nobody knows. Raises FwError."""

    @abstractmethod
    def bring(self, advance: Advance) -> None:
        """Fetch it, continuing what an earlier try has left. It is at its place when it is whole
        and its sums are right, and else not at all: FwError says why, in one sentence."""
