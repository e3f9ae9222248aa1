"""One stage done by several processes, each on a device of its own: torchrun's agent starts and
watches them, and ends them all when one dies.

A team that lost a member begins again from its last checkpoint, and ends with the same result. An
error that a member raises ends the stage, in its own words.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection as connections
from pathlib import Path
from typing import Any

from fw.core.errors import Interrupted, StageFailed
from fw.core.execution.listening import Listener
from fw.core.execution.member import Done, Failed, Here, Member, Stopped, member
from fw.core.execution.place import Place
from fw.core.execution.trace import leave
from fw.core.execution.work import Worked
from fw.core.machine.leases import Right
from fw.core.machine.spawning import without_script
from fw.core.machine.stopping import deaf
from fw.core.stages.base import Stage

RESTARTS = 3
"""How often a team begins again that has lost a member."""

GRACE = 2.0
"""Seconds after an error in which the others can say what they know."""

LOGGERS = ("torch.distributed.elastic", "torch.multiprocessing")
"""They would tell the user of every signal; what matters is said in a sentence."""


def together(
    stage: Stage,
    folder: Path,
    place: Place,
    listener: Listener,
    stopping: Callable[[], bool],
    right: Right,
) -> Worked:
    """Do a stage in its folder with `place.ranks` processes.

    Raises StageFailed with what a member raised, or if members die again and again; Interrupted if
    it was stopped.
    """
    loss: str | None = None
    for _ in range(RESTARTS + 1):
        if loss is not None:
            listener.told(stage.id, f"{loss}; its {place.ranks} ranks begin again")
        team = Attempt(stage, folder, place, right)
        team.run(listener, stopping)
        if (loss := team.loss) is None:
            return team.outcome()
    raise StageFailed(f"{loss}, {RESTARTS + 1} times")


@dataclass
class Attempt:
    """A team's processes, and what became of them."""

    stage: Stage
    folder: Path
    place: Place
    right: Right
    words: dict[int, Done | Stopped | Failed] = field(default_factory=dict)
    """How members say that they have ended, the first first."""
    processes: dict[int, int] = field(default_factory=dict)
    """The process ids of members that have started."""
    lost: list[int] = field(default_factory=list)
    """Members that ended without a word before they were to end, the first first."""
    codes: dict[int, int | None] = field(default_factory=dict)
    """Exit codes of those that were lost, where they are known."""
    error: BaseException | None = None
    """What the agent raised."""
    _ending: float | None = None
    """When all are to end, because one has failed."""

    def run(self, listener: Listener, stopping: Callable[[], bool]) -> None:
        context = multiprocessing.get_context("spawn")
        signals = context.RawArray("b", 2)  # without a lock, which a process that dies may hold
        ours, theirs = zip(*(context.Pipe(False) for _ in range(self.place.ranks)), strict=True)
        task = Member(self.stage, self.folder, self.place, self.right, theirs, signals)
        agent = threading.Thread(target=self._launch, args=(task,), daemon=True)
        agent.start()
        try:
            self._hear(agent, ours, task, listener, stopping)
        finally:
            task.end()
            for rank, process in self.processes.items():
                if agent.is_alive() and rank not in self.words:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
            agent.join()
            for each in (*ours, *theirs):
                each.close()

    @property
    def loss(self) -> str | None:
        """Who died, if one did; an error that all know of matters more."""
        if not self.lost or any(isinstance(w, Failed) and not w.own for w in self.words.values()):
            return None
        rank = self.lost[0]
        killed = self.codes.get(rank) == -signal.SIGKILL
        hint = " (was there too little memory?)" if killed else ""
        return f"rank {rank} of {self.place.ranks} died{hint}"

    def outcome(self) -> Worked:
        """What the first member has done, if none has failed."""
        failures = sorted(
            (word for word in self.words.values() if isinstance(word, Failed)),
            key=lambda word: (word.own, word.waited),
        )
        for failure in failures:
            where = leave(self.folder, failure.trace) if failure.trace else ""
            who = f"rank {failure.rank} of {self.place.ranks}: " if failure.own else ""
            raise StageFailed(f"{who}{failure.reason}{where}")
        for word in self.words.values():
            if isinstance(word, Stopped):
                raise Interrupted(word.reason)
        first = self.words.get(0)
        if not isinstance(first, Done):
            why = f": {self.error}" if self.error is not None else ""
            raise StageFailed(f"its {self.place.ranks} ranks could not be started{why}")
        return first.worked

    def _launch(self, task: Member) -> None:
        from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

        scratch_folder = tempfile.TemporaryDirectory(prefix="fw-team-")
        with without_script(), deaf(), quiet(), scratch_folder as scratch:
            config = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=self.place.ranks,
                rdzv_backend="c10d",
                rdzv_endpoint="localhost:0",
                local_addr="localhost",
                run_id=self.stage.id,
                max_restarts=0,  # members of a new team get pipes of their own
                monitor_interval=0.1,
                logs_specs=DefaultLogsSpecs(log_dir=scratch),
            )
            try:
                elastic_launch(config, member)(task)
            except ChildFailedError as error:
                for rank, failure in error.failures.items():
                    if self.codes.get(rank) is None:
                        self.codes[rank] = failure.exitcode
            except BaseException as error:
                self.error = error

    def _hear(
        self,
        agent: threading.Thread,
        ours: Sequence[connections.Connection],
        task: Member,
        listener: Listener,
        stopping: Callable[[], bool],
    ) -> None:
        """Pass on what members say until the agent has ended; have them stop, and end."""
        links = dict(enumerate(ours))
        while agent.is_alive() or any(link.poll() for link in links.values()):
            if stopping():
                task.stop()
            if self._ending is not None and time.monotonic() > self._ending:
                task.end()
            if len(self.processes) == len(ours):
                for each in task.links:
                    each.close()  # so that the end of a member is heard
            ready = connections.wait(list(links.values()), timeout=0.1)
            for rank, link in [*links.items()]:
                if link not in ready:
                    continue
                try:
                    word = link.recv()
                except (EOFError, OSError):
                    del links[rank]
                    if rank not in self.words and self._ending is None:
                        self.lost.append(rank)
                        self.codes[rank] = exit_code(self.processes.get(rank))
                        self._ending = time.monotonic()
                    continue
                self._take(rank, word, listener)
            if not links:
                agent.join(0.1)

    def _take(self, rank: int, word: Any, listener: Listener) -> None:
        match word:
            case Here(process):
                self.processes[rank] = process
            case Done() | Stopped():
                self.words[rank] = word
            case Failed():
                self.words[rank] = word
                self._ending = time.monotonic() + GRACE
            case _:
                call, *rest = word
                getattr(listener, call)(*rest)


def exit_code(process: int | None) -> int | None:
    """Of a process that is ending and that the agent waits for, minus a signal's number; None if
    the agent was faster, and knows it."""
    if process is None or not hasattr(os, "waitid"):
        return None
    try:
        ended = os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        return None
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    before = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
