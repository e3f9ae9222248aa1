"""Where stages on other machines leave what they report, until the run fetches it."""

from __future__ import annotations

from typing import Any


class Mailbox:
    """Lives in a process of its own on the run's machine, as a Ray actor; it imports nothing
    heavy."""

    def __init__(self) -> None:
        self.messages: list[tuple[Any, ...]] = []
        self.stopped = False

    def leave(self, *message: Any) -> None:
        self.messages.append(message)

    def stop(self) -> None:
        """Ask teams over several nodes to stop: Ray would cut off what a cancelled task hears of
        other nodes."""
        self.stopped = True

    def stopping(self) -> bool:
        return self.stopped

    def fetch(self) -> list[tuple[Any, ...]]:
        """What has been left since the last time, in order."""
        messages, self.messages = self.messages, []
        return messages
