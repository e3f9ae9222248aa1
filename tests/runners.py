"""Runners that share a store, each a process of its own, and stages that only take their time."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar

from fw.core.execution.local import run_here
from fw.core.execution.place import Place
from fw.core.job import Job
from fw.core.machine import leases
from fw.core.plan.graph import Plan
from fw.core.stages.base import Products, Stage
from fw.core.store.store import Store

FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True, eq=False)
class Nap(Stage):
    """Sleeps, and writes down who it is."""

    kind: ClassVar[str] = "nap"
    files: ClassVar[tuple[str, ...]] = ("name.json",)
    name: str
    naps: int = field(metadata={"unkeyed": True})
    """Of a tenth of a second each."""

    @property
    def label(self) -> str:
        return self.name

    def run(self, job: Job, products: Products) -> None:
        for _ in job.track(range(self.naps), "naps"):
            time.sleep(0.1)
        job.keep("name.json", lambda path: path.write_text(json.dumps(self.name)))


def naps(count: int, tenths: int = 1) -> Plan:
    plan = Plan()
    for number in range(count):
        plan.add(Nap(f"nap {number}", tenths))
    return plan


@dataclass
class Notes:
    """What a runner has to say, sent to whoever has the other end of its pipe."""

    connection: Connection

    def progress(self, stage: str, label: str, done: int, total: int) -> None:
        self.connection.send(("progress", stage))

    def metrics(self, stage: str, records: Sequence[Mapping[str, float]]) -> None:
        pass

    def told(self, stage: str, text: str) -> None:
        self.connection.send(("told", stage, text))

    def started(self, stage: str, node: str = "") -> None:
        self.connection.send(("started", stage))

    def waiting(self, stage: str, holder: str) -> None:
        self.connection.send(("waiting", stage, holder))

    def done(self, stage: str, already: bool = False) -> None:
        self.connection.send(("already" if already else "done", stage))

    def failed(self, stage: str, reason: str) -> None:
        self.connection.send(("failed", stage, reason))


class Runner:
    """A process that does a plan on a store as soon as it is let go, and what it has said."""

    def __init__(
        self,
        plan: Plan,
        root: Path,
        lease: float = leases.LEASE,
        beat: float = leases.BEAT,
        host: str = "",
    ):
        self.connection, theirs = FORK.Pipe()
        self.notes: list[tuple[Any, ...]] = []
        arguments = (theirs, plan, root, lease, beat, host)
        self.process = FORK.Process(target=life, args=arguments, daemon=True)
        self.process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def go(self) -> None:
        self.connection.send("go")

    def hear(self, word: str) -> tuple[Any, ...]:
        """The next note that begins with this word."""
        while True:
            self.notes.append(self.connection.recv())
            if self.notes[-1][0] == word:
                return self.notes[-1]

    def end(self) -> dict[str, str]:
        """Wait for its end; the stages that failed, and why."""
        failed: dict[str, str] = self.hear("end")[1]
        self.process.join()
        return failed

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


def life(
    connection: Connection, plan: Plan, root: Path, lease: float, beat: float, host: str
) -> None:
    leases.LEASE, leases.BEAT = lease, beat
    if host:
        socket.gethostname = lambda: host
    Store.publish = counted(Store.publish)  # type: ignore[method-assign]
    assert connection.recv() == "go"
    place = Place(root, "cpu", threads=1, checkpoint_seconds=20)
    outcome = run_here(plan, (), place, Notes(connection), lambda: False)
    connection.send(("end", outcome.failed))


def counted(publish: Callable[..., None]) -> Callable[..., None]:
    """The same, and a line in a file for whatever was published."""

    def publish_and_note(store: Store, stage: str, *facts: Any) -> None:
        publish(store, stage, *facts)
        with store.root.with_name("published").open("a", encoding="utf-8") as file:
            file.write(f"{stage} {os.getpid()}\n")

    return publish_and_note


def published(root: Path) -> list[tuple[str, int]]:
    """Each stage that was published, as often as it was, and by which process."""
    lines = root.with_name("published").read_text(encoding="utf-8").splitlines()
    return [(stage, int(pid)) for stage, pid in map(str.split, lines)]
