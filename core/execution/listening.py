"""Who hears what stages report, here or at the far end of a connection."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Protocol

REPORT_SECONDS = 0.2


class Listener(Protocol):
    """Who hears what the stages report."""

    def progress(self, stage: str, label: str, done: int, total: int) -> None: ...

    def metrics(self, stage: str, records: Sequence[Mapping[str, float]]) -> None: ...

    def told(self, stage: str, text: str) -> None: ...


@dataclass
class StageReporter:
    """A job's reporter that names the stage and keeps progress to a few messages a second."""

    stage: str
    listener: Listener
    _last: float = field(default=0.0)

    def progress(self, label: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done == total or now - self._last >= REPORT_SECONDS:
            self._last = now
            self.listener.progress(self.stage, label, done, total)

    def metrics(self, records: Sequence[Mapping[str, float]]) -> None:
        self.listener.metrics(self.stage, records)

    def say(self, text: str) -> None:
        self.listener.told(self.stage, text)


@dataclass
class Pipe:
    """A listener at the far end of a connection."""

    connection: Connection

    def progress(self, stage: str, label: str, done: int, total: int) -> None:
        self.connection.send(("progress", stage, label, done, total))

    def metrics(self, stage: str, records: Sequence[Mapping[str, float]]) -> None:
        self.connection.send(("metrics", stage, list(records)))

    def told(self, stage: str, text: str) -> None:
        self.connection.send(("told", stage, text))
