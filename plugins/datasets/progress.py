"""The progress of reading a dataset, on stderr, because `load` has no job to report it."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator

EVERY = 30.0
"""Seconds between two lines where no bar can be drawn."""


@contextlib.contextmanager
def progress(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Gives a function to call with how many more are done. A bar on a terminal, else a line every
    half minute.

    A terminal on which a run draws its own bars gets lines, too, and so does a worker process.
    """
    from rich.file_proxy import FileProxy

    taken = isinstance(sys.stderr, FileProxy) or multiprocessing.parent_process() is not None
    if sys.stderr.isatty() and not taken:
        with bar(label, total) as advance:
            yield advance
    else:
        yield Lines(label, total)


@contextlib.contextmanager
def bar(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(label),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
    )
    started = time.monotonic()
    with Progress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as display:
        task = display.add_task(label, total=total, rate="")

        def advance(count: int) -> None:
            display.advance(task, count)
            done = display.tasks[0].completed
            display.update(task, rate=f"{done / max(time.monotonic() - started, 1e-9):,.0f}/s")

        yield advance


class Lines:
    """One line on stderr every half minute: how many are done, the rate, the time left."""

    def __init__(self, label: str, total: int | None):
        self.label = label
        self.total = total
        self.done = 0
        self.started = self.last_line = time.monotonic()

    def __call__(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.last_line >= EVERY:
            self.last_line = now
            rate = self.done / (now - self.started)
            left = (
                f" of {self.total:,}, {(self.total - self.done) / rate:.0f} s left"
                if self.total
                else ""
            )
            print(f"{self.label}: {self.done:,}{left}, {rate:,.0f}/s", file=sys.stderr, flush=True)
