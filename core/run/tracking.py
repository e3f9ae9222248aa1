"""What the recipe's tracker hears of a run, which goes on whatever the tracker makes of it."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.console import Console

from fw.core.errors import FwError
from fw.core.job import fewer
from fw.core.kinds import TrackedRun
from fw.core.messages.console import say
from fw.core.plan.graph import Plan
from fw.core.report.markdown import SECTIONS, note
from fw.core.report.runfile import RESOLVED, RUN_FILE
from fw.core.report.snapshots import CURVES, grids_file, snapshot_series
from fw.core.run.untracked import Untracked
from fw.core.stages.base import Stage
from fw.core.store.store import Store

MODEL = "model.safetensors"


class Tracking:
    """A tracked run, between the tracker's failures: none of them ends the run."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        console: Console,
        opening: Callable[[], TrackedRun],
        shield: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ):
        self.plan = plan
        self.store = store
        self.console = console
        self.opening = opening
        self.shield = shield
        """What the tracker is called in: it is not interrupted in the middle of a transaction."""
        self.tracked: TrackedRun = Untracked()
        self.failed = False
        """Whether the tracker failed: it is not called then, until it is opened anew."""
        self.tried_again = False

    def begin(self) -> None:
        """Open the tracker; raises what it raises."""
        with self.shield():
            self.tracked = self.opening()

    def metrics(self, stage: str, records: Sequence[Mapping[str, float]]) -> None:
        """Loss curves go to every arm whose model it is; an encoder's and a sibling's to the run as
        a whole."""
        with self.guarded() as tracked:
            arms = [name for name, arm in self.plan.arms.items() if arm.train == stage]
            for arm in arms:
                tracked.series(arm, records)
            if not arms:
                tracked.series(None, [named(self.plan.stages[stage], record) for record in records])

    def done(self, stage: str) -> None:
        """All that a finished stage has to show; the tracker may know some of it already."""
        if self.store.reportable(stage).state != "done":  # another run may be making it again
            return
        folder = self.store.path(stage)
        if (folder / "log.jsonl").exists():
            lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
            self.metrics(stage, curves([json.loads(line) for line in lines]))
        if (folder / "grid.png").exists():
            with self.guarded() as tracked:
                for arm in self.plan.users(stage):
                    tracked.files(arm, [folder / "grid.png"])

    def results(self, result: Mapping[str, Any], folder: Path, stopped: bool) -> None:
        """What was concluded, arm by arm and for the run as a whole, which has its record in
        `folder`."""
        quality: dict[str, float] = {}
        with self.guarded() as tracked:
            for name, planned in self.plan.arms.items():
                arm = result["arms"][name]
                if curves := snapshot_series(arm, len(planned.snapshots)):
                    tracked.series(name, curves)
                if (grids := folder / grids_file(name)).exists():
                    tracked.files(name, [grids])
                finished = arm["status"] == "finished"
                if finished:
                    scores = arm_scores(arm)
                    tracked.scores(name, scores)
                    if wants_model(tracked, name) and self.intact_model(name):
                        tracked.model(name, self.model(name), scores)
                tracked.end_arm(name, "finished" if finished else "killed" if stopped else "failed")
                for section in SECTIONS:
                    found = arm.get(section.name, {}).items()
                    quality |= {f"{section.name}/{name}/{key}": value for key, value in found}
            tracked.scores(None, quality)
            documents = [folder / name for name in ("report.md", RUN_FILE, RESOLVED, "arms.png")]
            documents.append(folder / CURVES)
            others = [*sorted(folder.glob("samples-*.png")), *sorted(folder.glob("plugins/*.py"))]
            tracked.files(None, [path for path in (*documents, *others) if path.exists()])
            tracked.note(note(result))

    def model(self, arm: str) -> Path:
        return self.store.path(self.plan.arms[arm].weights) / MODEL

    def intact_model(self, arm: str) -> bool:
        """Whether an arm's weights are as they were stored; a warning if not."""
        status = self.store.verify(self.plan.arms[arm].weights, [MODEL])
        if status.state != "done":
            say(
                self.console,
                f"warning: the model of arm {arm} is not logged, because it is damaged in the "
                f"store, {status.reason}: discard it with `fw verify {self.store.root} --discard`",
                style="yellow",
            )
        return status.state == "done"

    def open_late(self) -> bool:
        """Open the tracker, and tell it all that is in the store; whether it could be opened."""
        self.failed = False
        with self.guarded():
            self.tracked = self.opening()
        if not self.failed:
            for stage in self.plan.stages:
                self.done(stage)
        return not self.failed

    def catch_up(self) -> bool:
        """At the end of a run: try a tracker that failed once more.

        True if it was opened, so that whatever it heard outside of `done` has to be said again.
        """
        if not self.failed or self.tried_again:
            return False
        self.tried_again = True
        return self.open_late()

    def end(self, status: str) -> None:
        """End the tracked run, also where a failure kept the run from its end."""
        self.catch_up()
        with self.guarded() as tracked:
            tracked.end(status)

    @contextlib.contextmanager
    def guarded(self) -> Iterator[TrackedRun]:
        """The tracked run. Once it failed, which is said, nobody is called in its place until
        `catch_up`."""
        try:
            with self.shield():
                yield Untracked() if self.failed else self.tracked
        except Exception as error:
            self.failed = True
            reason = f"the tracker raised {type(error).__name__}: {error}"
            if isinstance(error, FwError):
                reason = str(error)
            then = "its end tries the tracker again"
            if self.tried_again:
                then = "running it again logs what is missing"
            say(self.console, f"warning: {reason}; the run goes on, and {then}", style="yellow")


def wants_model(tracked: TrackedRun, arm: str) -> bool:
    """Whether the tracker lacks an arm's weights. One that does not say so gets them: to read them
    is what takes long."""
    wants: Callable[[str], bool] = getattr(tracked, "wants_model", lambda arm: True)
    return wants(arm)


def curves(records: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """The records of a log with at most `POINTS` points of every curve, its first and its last."""
    ends = {key: int(record["step"]) + 1 for record in records for key in record}
    return fewer(records, ends.__getitem__, {})


def named(stage: Stage, record: Mapping[str, float]) -> dict[str, float]:
    """Prefix a record's keys with the words of the title, so that no two encoders share a curve."""
    words = re.sub(r"[^\w.-]+", "/", stage.title)  # trackers refuse its commas
    prefix = f"{words}-{stage.key[:6]}"
    return {key if key == "step" else f"{prefix}/{key}": value for key, value in record.items()}


def arm_scores(entry: Mapping[str, Any]) -> dict[str, float]:
    """An arm's final metrics as the tracker shows them; the same keys for every arm, but for what
    probes read."""
    metrics = entry["metrics"].items()
    scores = {f"eval/{key}": score["mean"] for key, score in metrics}
    scores |= {f"std/{key}": score["std"] for key, score in metrics}
    floors = {key: score["floor"] for key, score in metrics}
    scores |= {f"floor/{key}": floor for key, floor in floors.items() if floor is not None}
    scores |= {f"probe/{key}": value for key, value in entry.get("probes", {}).items()}
    if "spread" in entry:
        exact = entry["spread"]
        scores |= {f"sampler/{key}": exact[key] for key in ("whole", "detail", "gain")}
    return scores | {"cost/nfe": entry["nfe"], "cost/seconds": entry["seconds"]}
