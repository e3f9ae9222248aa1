"""What people see of a run's stages: progress bars on a terminal; elsewhere a line when a stage
begins, when it ends, and from time to time in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from fw.core.execution.progress import Reached, Speed
from fw.core.messages.console import say
from fw.core.messages.escaping import visible
from fw.core.plan.graph import Plan
from fw.core.run.tracking import Tracking
from fw.core.store.store import Store

EVERY = 30.0
"""Least seconds between two lines about one stage, and before the first."""

SHARE = 60
"""The lines of a long stage are rarer: a sixtieth of its time so far apart."""


class Board:
    """A listener of the executor. It passes on to the tracker what that wants to hear."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        console: Console,
        tracking: Tracking | None = None,
    ):
        self.plan = plan
        self.store = store
        self.console = console
        self.tracking = tracking
        self.bars = bars(console)
        self.tasks: dict[tuple[str, str], TaskID] = {}
        self.lines: dict[str, Lines] = {}
        """Of the stages that are going on, where there are no bars."""

    def __enter__(self) -> Board:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def started(self, stage: str, node: str = "") -> None:
        if self.tracking is not None:
            self.tracking.started(stage)
        self.say(f"start  {self.title(stage)}{node and f', on {node}'}")
        self.lines[stage] = Lines(Speed(self.title(stage)))

    def progress(self, stage: str, label: str, done: int, total: int) -> None:
        if self.bars.disable:
            lines = self.lines.setdefault(stage, Lines(Speed(self.title(stage))))
            if (reached := lines.due(label, done, total)) is not None:
                self.say(f"at     {self.title(stage)}: {reached}")
            return
        if (stage, label) not in self.tasks:
            title = visible(self.title(stage))
            self.tasks[stage, label] = self.bars.add_task(title, total=total)
        self.bars.update(self.tasks[stage, label], completed=done)

    def metrics(self, stage: str, records: Sequence[Mapping[str, float]]) -> None:
        if self.tracking is not None:
            self.tracking.metrics(stage, records)

    def told(self, stage: str, text: str) -> None:
        self.say(f"warning: {self.title(stage)}: {text}", style="yellow")

    def waiting(self, stage: str, holder: str) -> None:
        self.clear(stage)
        if self.tracking is not None:
            self.tracking.stopped(stage)
        self.say(f"wait   {self.title(stage)}: {holder} is at it")

    def done(self, stage: str, already: bool = False) -> None:
        self.clear(stage)
        if self.tracking is not None:
            self.tracking.stopped(stage)
        took = ""
        if self.store.present(stage):
            took = f" in {self.store.manifest(stage)['seconds']:.0f} s"
        self.say(f"done   {self.title(stage)}{took}{' (there already)' if already else ''}")
        if self.tracking is not None:
            self.tracking.done(stage)

    def failed(self, stage: str, reason: str) -> None:
        self.clear(stage)
        if self.tracking is not None:
            self.tracking.stopped(stage)
        self.say(f"FAILED {self.title(stage)}: {reason}", style="red")

    def title(self, stage: str) -> str:
        return self.plan.stages[stage].title

    def clear(self, stage: str) -> None:
        self.lines.pop(stage, None)
        for key in [key for key in self.tasks if key[0] == stage]:
            self.bars.remove_task(self.tasks.pop(key))

    def say(self, text: str, style: str | None = None) -> None:
        say(self.console, text, style)


@dataclass
class Lines:
    """Which counts of a stage get a line."""

    speed: Speed
    clock: Callable[[], float] = time.monotonic
    began: float = field(default=0.0, init=False)
    last: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.began = self.last = self.clock()

    def due(self, label: str, done: int, total: int) -> Reached | None:
        """What is to be said now, if it is time."""
        reached, now = self.speed.at(label, done, total), self.clock()
        if done == total or now - self.last < max(EVERY, (now - self.began) / SHARE):
            return None
        self.last = now
        return reached


def bars(console: Console) -> Progress:
    """Progress bars, drawn on a terminal only."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


class Rate(ProgressColumn):
    """Items per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "", style="progress.data.speed")
