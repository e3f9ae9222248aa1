"""What makes the host wait for a device, and what no device would do: counted by file and line.

A wait is *within* a stretch of work if it holds up what should run on without the host: `step`, a
step of a training, or `sampler`, from the first call of a network in a sampler to the last.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fw.core
from fw.core.files.checkpoints import THREAD

ROOT = str(Path(fw.core.__file__).parents[1])
TESTS = str(Path(__file__).parents[1])


class DeviceFault(RuntimeError):
    """What a GPU would refuse."""


@dataclass
class Waits:
    """What happened since the last `clear`."""

    anywhere: Counter[str] = field(default_factory=Counter)
    """`item at core/job.py:7` and how often."""
    within: dict[str, Counter[str]] = field(default_factory=dict)
    """Those within a step of a training, and those between two calls of a sampler."""
    faults: list[str] = field(default_factory=list)
    devices: set[int] = field(default_factory=set)
    """Of which tensors were made or generators drawn from."""
    _began: float = 0.0
    _stretch: str | None = None
    _sampling: bool = False
    _since: Counter[str] | None = None
    """Waits since the last call of a network in a sampler; None before the first."""

    def waited(self, what: str) -> None:
        what = f"{what} at {place()}"
        if threading.current_thread().name == THREAD:
            self.anywhere[f"beside: {what}"] += 1
            return
        self.anywhere[what] += 1
        if self._stretch is not None:
            self.within.setdefault(self._stretch, Counter())[what] += 1
        if self._since is not None:
            self._since[what] += 1

    def fault(self, what: str) -> DeviceFault:
        self.faults.append(f"{what} at {place()}")
        return DeviceFault(self.faults[-1])

    @contextlib.contextmanager
    def inside(self, stretch: str | None) -> Iterator[None]:
        """What is waited for in here is within the stretch."""
        before, self._stretch = self._stretch, stretch
        try:
            yield
        finally:
            self._stretch = before

    @contextlib.contextmanager
    def sampling(self, sampler: object) -> Iterator[None]:
        """A sampler is at work: what is waited for from its first call of a network to its last
        holds it up."""
        self._sampling = True
        try:
            yield
        finally:
            self._since, self._sampling = None, False

    @contextlib.contextmanager
    def call(self, network: object) -> Iterator[None]:
        """A network is called."""
        self._confirm()
        try:
            yield
        finally:
            self._confirm()

    def _confirm(self) -> None:
        """What was waited for so far was between two calls."""
        if self._since:
            self.within.setdefault("sampler", Counter()).update(self._since)
        self._since = Counter() if self._sampling else None

    def stage(self, stage: Any) -> AbstractContextManager[None]:
        return self.recorded(f"{stage.kind} {stage.label}")

    @contextlib.contextmanager
    def recorded(self, what: str) -> Iterator[None]:
        """What happens in here is written to `SIMCUDA_WAITS` afterwards, a line of JSON."""
        self.clear()
        try:
            yield
        finally:
            if path := os.environ.get("SIMCUDA_WAITS"):
                with Path(path).open("a", encoding="utf-8") as file:
                    file.write(self._line(what) + "\n")

    def _line(self, what: str) -> str:
        return json.dumps(
            {
                "what": what,
                "waits": self.anywhere,
                "within": self.within,
                "faults": self.faults,
                "devices": sorted(self.devices),
                "seconds": round(time.process_time() - self._began, 1),
            }
        )

    def clear(self) -> None:
        self.anywhere.clear()
        self.within.clear()
        self.faults.clear()
        self.devices.clear()
        self._began = time.process_time()


WAITS = Waits()


def place() -> str:
    """The innermost line of fw that is being executed; in autograd's own threads there is none."""
    frame = sys._getframe()
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(ROOT) and not file.startswith(TESTS) and "site-packages" not in file:
            return f"{file[len(ROOT) + 1 :]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "the backward pass"
