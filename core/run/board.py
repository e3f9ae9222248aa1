"""What the parent of a run does with news from its stages: progress bars for people, metrics for the tracker."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

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

from fw.core.errors import FwError
from fw.core.kinds import TrackedRun
from fw.core.messages.console import say
from fw.core.messages.escaping import visible
from fw.core.plan.graph import ArmPlan, Plan
from fw.core.run.untracked import Untracked
from fw.core.stages.base import Stage
from fw.core.store.store import Store


class Rate(ProgressColumn):
    """Items per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "", style="progress.data.speed")


class Board:
    """A listener of the executor. Bars are drawn on a terminal only; elsewhere, one line per stage."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        console: Console,
        opening: Callable[[], TrackedRun] = Untracked,
        shield: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ):
        self.plan = plan
        self.store = store
        self.opening = opening
        self.tracked: TrackedRun = Untracked()
        self.failed_to_track = False
        """Whether the tracker failed: it is not called then, until it is opened anew."""
        self.tried_again = False
        self.console = console
        self.shield = shield
        """What the tracker is called in: it is not interrupted in the middle of a transaction."""
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            Rate(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.tasks: dict[tuple[str, str], TaskID] = {}

    def __enter__(self) -> Board:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def started(self, stage: str) -> None:
        self.say(f"start  {self.title(stage)}")

    def progress(self, stage: str, label: str, done: int, total: int) -> None:
        if (stage, label) not in self.tasks:
            self.tasks[stage, label] = self.bars.add_task(visible(self.title(stage)), total=total)
        self.bars.update(self.tasks[stage, label], completed=done)

    def metrics(self, stage: str, records: Sequence[Mapping[str, float]]) -> None:
        """Loss curves go to every arm whose model it is; an encoder's and a sibling's to the run as a whole."""
        with self.tracking() as tracked:
            arms = [name for name, arm in self.plan.arms.items() if arm.train == stage]
            for arm in arms:
                tracked.series(arm, records)
            if not arms:
                tracked.series(None, [named(self.plan.stages[stage], record) for record in records])

    def told(self, stage: str, text: str) -> None:
        self.say(f"warning: {self.title(stage)}: {text}", style="yellow")

    def waiting(self, stage: str) -> None:
        self.say(f"wait   {self.title(stage)}: another run is at it")

    def done(self, stage: str) -> None:
        self.clear(stage)
        took = f" in {self.store.manifest(stage)['seconds']:.0f} s" if self.store.present(stage) else ""
        self.say(f"done   {self.title(stage)}{took}")
        self.track(stage)

    def failed(self, stage: str, reason: str) -> None:
        self.clear(stage)
        self.say(f"FAILED {self.title(stage)}: {reason}", style="red")

    def track(self, stage: str) -> None:
        """Tell the tracker all that a finished stage has to show; it may know some of it already."""
        if not self.store.present(stage):  # another run may be making it again
            return
        folder = self.store.path(stage)
        if (folder / "log.jsonl").exists():
            lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
            self.metrics(stage, [json.loads(line) for line in lines])
        if (folder / "grid.png").exists():
            with self.tracking() as tracked:
                for arm in self.plan.users(stage):
                    tracked.files(arm, [folder / "grid.png"])

    @contextlib.contextmanager
    def tracking(self) -> Iterator[TrackedRun]:
        """The tracked run. Once it failed, which is said, nobody is called in its place until `catch_up`."""
        try:
            with self.shield():
                yield Untracked() if self.failed_to_track else self.tracked
        except Exception as error:
            self.failed_to_track = True
            reason = str(error) if isinstance(error, FwError) else f"the tracker raised {type(error).__name__}: {error}"
            then = "running it again logs what is missing" if self.tried_again else "its end tries the tracker again"
            self.say(f"warning: {reason}; the run goes on, and {then}", style="yellow")

    def begin_tracking(self) -> None:
        """Open the tracker; raises what it raises."""
        with self.shield():
            self.tracked = self.opening()

    def open_late(self) -> bool:
        """Open the tracker, and tell it all that is in the store; whether it could be opened."""
        self.failed_to_track = False
        with self.tracking():
            self.tracked = self.opening()
        if not self.failed_to_track:
            for stage in self.plan.stages:
                self.track(stage)
        return not self.failed_to_track

    def catch_up(self) -> bool:
        """At the end of a run: try a tracker that failed once more.

        True if it was opened, so that whatever it was told outside of `track` has to be told again.
        """
        if not self.failed_to_track or self.tried_again:
            return False
        self.tried_again = True
        return self.open_late()

    def end(self, status: str) -> None:
        """End the tracked run, also where a failure kept the run from its end."""
        self.catch_up()
        with self.tracking() as tracked:
            tracked.end(status)

    def title(self, stage: str) -> str:
        return self.plan.stages[stage].title

    def clear(self, stage: str) -> None:
        for key in [key for key in self.tasks if key[0] == stage]:
            self.bars.remove_task(self.tasks.pop(key))

    def say(self, text: str, style: str | None = None) -> None:
        say(self.console, text, style)


def named(stage: Stage, record: Mapping[str, float]) -> dict[str, float]:
    """Prefix a record's keys with the words of the title, so that no two encoders share a curve."""
    words = re.sub(r"[^\w.-]+", "/", stage.title)  # trackers refuse its commas
    prefix = f"{words}-{stage.key[:6]}"
    return {key if key == "step" else f"{prefix}/{key}": value for key, value in record.items()}


def arm_scores(entry: Mapping[str, Any]) -> dict[str, float]:
    """An arm's final metrics as the tracker shows them; the same keys for every arm, but for what probes read."""
    scores = {f"eval/{key}": score["mean"] for key, score in entry["metrics"].items()}
    scores |= {f"std/{key}": score["std"] for key, score in entry["metrics"].items()}
    scores |= {f"floor/{key}": score["floor"] for key, score in entry["metrics"].items() if score["floor"] is not None}
    scores |= {f"probe/{key}": value for key, value in entry.get("probes", {}).items()}
    return scores | {"cost/nfe": entry["nfe"], "cost/seconds": entry["seconds"]}


def arm_params(arm: ArmPlan, shared: Mapping[str, Any]) -> dict[str, str]:
    """An arm's sections and the recipe's shared ones, flattened to dotted keys."""
    flat: dict[str, str] = {}
    sections = {section: getattr(arm.arm, section) for section in type(arm.arm).model_fields}
    for name, value in {**shared, **sections}.items():
        flatten(name, value, flat)
    return flat


def flatten(path: str, value: Any, flat: dict[str, str]) -> None:
    if hasattr(value, "spec"):
        value = value.spec()
    elif hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        for key, entry in value.items():
            flatten(f"{path}.{key}", entry, flat)
    elif isinstance(value, tuple) and value and hasattr(value[0], "spec"):
        for index, entry in enumerate(value):
            flatten(f"{path}.{index}", entry, flat)
    else:
        flat[path] = str(value)
