"""`fw status`: what is running on a runs folder, queued, stalled or failed, from any terminal that
sees it. It reads the notes, leases and progress that the processes leave in the store, and no
recipe."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fw.core.errors import FwError
from fw.core.execution.progress import Reached, noted
from fw.core.machine.leases import LEASE, Claim, claims
from fw.core.messages.spans import span
from fw.core.store.at_work import AtWork, notes, silence
from fw.core.store.store import LEASES, PARTIAL, STAGE, Store

QUEUED = 5
"""Queued stages that are named; more are only counted."""


@dataclass(frozen=True)
class StageStatus:
    """What is known of one stage."""

    stage: str
    title: str
    state: str
    """`done`, `running`, `stalled`, `failed`, `stopped`, or `queued`."""
    claim: Claim | None = None
    """Whose it is, or was, by its lease."""
    silent: float = 0.0
    """Seconds since whoever has it showed life."""
    reached: Reached | None = None

    @property
    def why(self) -> str:
        """Who is at it, or what keeps it."""
        if self.state == "failed":
            assert self.reached is not None
            return self.reached.failed
        if self.claim is None:
            return "the same command continues it" if self.state == "stopped" else ""
        if self.state == "running":
            return self.claim.holder
        if self.claim.process is not None and self.claim.process.dead:
            return f"{self.claim.holder} has died; the same command continues it"
        return f"{self.claim.holder} has shown no life for {span(self.silent)}; is it paused?"

    def __str__(self) -> str:
        reached = f": {self.reached}" if self.reached is not None else ""
        return f"{self.title}{reached}" + (f" ({self.why})" if self.why else "")

    def facts(self) -> dict[str, Any]:
        reached = self.reached
        facts: dict[str, Any] = {"stage": self.stage, "title": self.title, "state": self.state}
        if self.claim is not None:
            facts |= {"holder": self.claim.holder, "silent": round(self.silent, 1)}
        if reached is not None:
            facts |= {"done": reached.done, "total": reached.total, "rate": reached.rate}
            facts["seconds_left"] = reached.left
            if self.state == "failed":
                facts["reason"] = reached.failed
        return facts


@dataclass(frozen=True)
class RunStatus:
    """A run that has left a note, and its stages."""

    run: AtWork
    stages: list[StageStatus]

    def of(self, state: str) -> list[StageStatus]:
        return [stage for stage in self.stages if stage.state == state]

    @property
    def state(self) -> str:
        if self.run.ended:
            return "ended"
        return "stalled" if self.run.silent > LEASE else "running"

    def __str__(self) -> str:
        run, holder = self.run, self.run.claim.holder
        counts = [f"{len(self.of('done'))} of {len(self.stages)} stages done"]
        counts += [f"{len(each)} {state}" for state in STATES if (each := self.of(state))]
        about = f"{run.recipe}: {holder}, for {span(time.time() - run.began)}"
        if self.state == "ended":
            about = f"{run.recipe}: {holder} has died; the same command continues"
        elif self.state == "stalled":
            about = f"{run.recipe}: {holder} has shown no life for {span(run.silent)}"
        return f"{about}; {', '.join(counts)}"

    def facts(self) -> dict[str, Any]:
        return {
            "recipe": self.run.recipe,
            "state": self.state,
            "holder": self.run.claim.holder,
            "began": self.run.began,
            "silent": round(self.run.silent, 1),
            "stages": [stage.facts() for stage in self.stages],
        }


STATES = ("running", "stalled", "failed", "stopped", "queued")


@dataclass(frozen=True)
class Status:
    """All that is going on in a runs folder."""

    root: Path
    runs: list[RunStatus]
    others: list[StageStatus]
    """Unfinished stages of no run that has left a note."""

    def facts(self) -> dict[str, Any]:
        return {
            "folder": str(self.root),
            "runs": [run.facts() for run in self.runs],
            "others": [stage.facts() for stage in self.others],
        }

    def lines(self) -> Iterator[str]:
        """What people read."""
        for run in self.runs:
            yield str(run)
            ended = run.state == "ended"
            yield from of_stages(s for s in run.stages if not ended or s.state != "queued")
        if self.others:
            yield "unfinished, of no run that is going on:"
            yield from of_stages(self.others)
        if not self.runs and not self.others:
            yield f"{self.root}: nothing is running, and nothing is unfinished"


def of_stages(stages: Iterable[StageStatus]) -> Iterator[str]:
    """A line for each that is not done; of many that are queued, the first."""
    stages, queued = list(stages), 0
    for state in STATES:
        for stage in stages:
            if stage.state == state:
                queued += state == "queued"
                if queued <= QUEUED:
                    yield f"  {state:8} {stage}"
    if queued > QUEUED:
        yield f"  and {queued - QUEUED} more"


def status(root: Path) -> Status:
    """FwError if there is no store."""
    store = Store(root.absolute() / "store")
    if not store.root.is_dir():
        raise FwError(f"{root}: no runs folder: there is no store in it")
    runs = [
        RunStatus(run, [of_stage(store, stage, title) for stage, title in run.stages.items()])
        for run in notes(store)
        if run.stages or run.ended  # a sweep does nothing but by runs
    ]
    known = {stage for run in runs for stage in run.run.stages}
    others = [
        of_stage(store, stage, stage)
        for stage in unfinished(store)
        if stage not in known and not store.path(stage).exists()
    ]
    return Status(root, runs, others)


def unfinished(store: Store) -> list[str]:
    """The stages that somebody has, or had, in hand."""
    begun = {path.name.removesuffix(PARTIAL) for path in store.root.glob(f"*{PARTIAL}")}
    leased = {path.name for path in (store.root / LEASES).glob("*")}
    return sorted(stage for stage in begun | leased if STAGE.fullmatch(stage))


def of_stage(store: Store, stage: str, title: str) -> StageStatus:
    reached = noted(store.partial(stage))
    if reached is not None and title == stage:
        title = reached.title
    folder = store.root / LEASES / stage
    try:
        _, claim = max(claims(folder).items())
    except (OSError, ValueError):  # nobody has it
        if store.path(stage).exists():
            return StageStatus(stage, title, "done")
        state = "stopped" if store.partial(stage).exists() else "queued"
        if reached is not None:
            state = "failed" if reached.failed else state
            reached = replace(reached, rate=None)  # nobody is at it
        return StageStatus(stage, title, state, reached=reached)
    silent = silence(claim, folder)
    alive = not (claim.process is not None and claim.process.dead) and silent <= LEASE
    return StageStatus(stage, title, "running" if alive else "stalled", claim, silent, reached)
