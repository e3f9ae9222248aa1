"""How far a stage is: as a line of a log, and as a small file in its unfinished folder, which
another terminal can read (`fw status`). The file matters to no result: it is never synced, and
where it cannot be written the work goes on."""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from fw.core.execution.listening import Listener
from fw.core.files.durable import ASIDE
from fw.core.messages.spans import span
from fw.core.store.store import PROGRESS

WINDOW = 30.0
"""Seconds that a rate is of."""

EVERY = 1.0
"""Least seconds between two writings of the file."""

NAME = f"stage{PROGRESS}"


@dataclass(frozen=True)
class Reached:
    """How far a loop of a stage is."""

    title: str
    """Of the stage."""
    label: str
    """Of the loop."""
    done: int
    total: int
    rate: float | None
    """Done in a second, lately; None as long as it is not known."""
    failed: str = ""
    """Why the stage failed, where that was the last that became of it."""

    @property
    def left(self) -> float | None:
        """Seconds until the loop ends."""
        return (self.total - self.done) / self.rate if self.rate else None

    def __str__(self) -> str:
        if not self.total:
            return "nothing done"
        words = [f"{self.done:,} of {self.total:,}"]
        if self.rate:
            words.append(f"{self.rate:.3g}/s")
        if self.left is not None:
            words.append(f"{span(self.left)} left")
        return ", ".join(words)


@dataclass
class Speed:
    """Makes `Reached` of the counts of one stage, whose loops follow each other."""

    title: str
    clock: Callable[[], float] = time.monotonic
    _label: str = ""
    _counts: deque[tuple[float, int]] = field(default_factory=deque)
    """When how many were done, within the window."""

    def at(self, label: str, done: int, total: int) -> Reached:
        now = self.clock()
        if label != self._label or (self._counts and done < self._counts[-1][1]):
            self._label, self._counts = label, deque()
        self._counts.append((now, done))
        while len(self._counts) > 2 and now - self._counts[1][0] >= WINDOW:
            self._counts.popleft()
        since, before = self._counts[0]
        rate = (done - before) / (now - since) if now > since and done > before else None
        return Reached(self.title, label, done, total, rate)


@dataclass
class Noting:
    """A listener that also keeps the file."""

    listener: Listener
    folder: Path
    speed: Speed
    _written: float | None = None

    def progress(self, stage: str, label: str, done: int, total: int) -> None:
        self.listener.progress(stage, label, done, total)
        progress, now = self.speed.at(label, done, total), time.monotonic()
        if self._written is None or now - self._written >= EVERY:
            self._written = now
            note(progress, self.folder)

    def metrics(self, stage: str, records: Sequence[Mapping[str, float]]) -> None:
        self.listener.metrics(stage, records)

    def told(self, stage: str, text: str) -> None:
        self.listener.told(stage, text)


def note(progress: Reached, folder: Path) -> None:
    with contextlib.suppress(OSError):
        aside = folder / f"{NAME}{ASIDE}"
        aside.write_text(json.dumps(asdict(progress)), encoding="utf-8")
        aside.replace(folder / NAME)


def note_failure(title: str, reason: str, folder: Path) -> None:
    """Keep why a stage failed, beside how far it was; if it has an unfinished folder."""
    reached = noted(folder) or Reached(title, "", 0, 0, None)
    note(replace(reached, rate=None, failed=reason), folder)


def noted(folder: Path) -> Reached | None:
    """How far the stage of an unfinished folder was when that was last written; None if it was
    not, or cannot be read."""
    try:
        facts = json.loads((folder / NAME).read_text(encoding="utf-8"))
        progress = Reached(**facts)
        numbers = (progress.done, progress.total, progress.rate or 0.0)
        return progress if all(isinstance(each, int | float) for each in numbers) else None
    except (OSError, ValueError, TypeError):
        return None
