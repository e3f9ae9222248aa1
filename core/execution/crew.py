"""The members of a team on one node, which torchrun's agent starts and watches, and ends all when
one dies."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing import connection as connections
from pathlib import Path
from typing import Any, Protocol

from fw.core.execution.member import Done, Failed, Here, Member, Stopped, member
from fw.core.execution.place import Place
from fw.core.machine.leases import Right
from fw.core.machine.spawning import without_script
from fw.core.machine.stopping import deaf
from fw.core.stages.base import Stage

LOGGERS = ("torch.distributed.elastic", "torch.multiprocessing")
"""They would tell the user of every signal; what matters is said in a sentence."""

PAUSE = 0.1
"""Seconds that a crew listens for a word."""


@dataclass(frozen=True)
class Lost:
    """A member ended without a word."""

    code: int | None
    """Its exit code, where it is known."""
    node: str = ""
    """Its node, where that is lost."""


@dataclass(frozen=True)
class Unstarted:
    """The agent raised an error of its own."""

    reason: str


@dataclass(frozen=True)
class Meeting:
    """Where the nodes of a team find each other: a store of torch.distributed on the first."""

    endpoint: str
    """Its host:port."""
    node: int
    """Which of the nodes this is."""


class Crew(Protocol):
    """The members on one node, here or elsewhere."""

    over: bool
    """Whether all have ended, and all that they said was heard."""

    @property
    def answers(self) -> bool:
        """Whether the node can be heard."""

    def hear(self) -> list[tuple[int, Any]]:
        """What they have said since the last time, with their ranks: Here, Done, Stopped, Failed,
        Lost, Unstarted, or the name and arguments of a listener's method."""

    def stop(self) -> None:
        """Have them stop at the next step."""

    def end(self) -> None:
        """Have them end at once."""

    def close(self) -> None:
        """End those that have not ended yet, and leave nothing of them."""


@dataclass
class LocalCrew:
    """A crew of processes of this machine; see `Crew`."""

    stage: Stage
    folder: Path
    place: Place
    right: Right
    meeting: Meeting | None = None
    """None if all of the team are here."""
    over: bool = False
    answers: bool = True
    processes: dict[int, int] = field(default_factory=dict)
    """The process ids of members that have started."""
    codes: dict[int, int] = field(default_factory=dict)
    """Exit codes that the agent has noticed, of those that have failed."""
    _error: BaseException | None = None
    _said: set[int] = field(default_factory=set)
    """Members that have said how they end."""

    def __post_init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        signals = context.RawArray("b", 2)  # without a lock, which a process that dies may hold
        count = self.place.ranks // self.place.nodes
        self._first = self.meeting.node * count if self.meeting else 0
        ours, theirs = zip(*(context.Pipe(False) for _ in range(count)), strict=True)
        self._links = {self._first + number: link for number, link in enumerate(ours)}
        self._pipes = (*ours, *theirs)
        self._task = Member(self.stage, self.folder, self.place, self.right, theirs, signals)
        self._agent = threading.Thread(target=self._launch, daemon=True)
        self._agent.start()

    def stop(self) -> None:
        self._task.stop()

    def end(self) -> None:
        self._task.end()

    def hear(self) -> list[tuple[int, Any]]:
        if self.over:
            time.sleep(PAUSE)
            return []
        ending = not self._agent.is_alive()
        if len(self.processes) == len(self._task.links):
            for each in self._task.links:
                each.close()  # so that the end of a member is heard
        words: list[tuple[int, Any]] = []
        ready = connections.wait(list(self._links.values()), timeout=PAUSE)
        for rank, link in [*self._links.items()]:
            if link not in ready:
                continue
            try:
                words.append((rank, self._received(rank, link)))
            except (EOFError, OSError):
                del self._links[rank]
                if rank not in self._said:
                    words.append((rank, Lost(exit_code(self.processes.get(rank)))))
        if not self._links:
            self._agent.join(PAUSE)
        if ending and not ready:
            self.over = True
            ended = self.codes.keys() & self.processes.keys() - self._said
            words += [(rank, Lost(self.codes[rank])) for rank in ended]
            if self._error is not None:
                words.append((self._first, Unstarted(str(self._error))))
        return words

    def close(self) -> None:
        self.end()
        for rank, process in self.processes.items():
            if self._agent.is_alive() and rank not in self._said:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        self._agent.join()
        for each in self._pipes:
            each.close()

    def _received(self, rank: int, link: connections.Connection) -> Any:
        word = link.recv()
        if isinstance(word, Here):
            self.processes[rank] = word.process
        elif isinstance(word, Done | Stopped | Failed):
            self._said.add(rank)
        return word

    def _launch(self) -> None:
        from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

        meeting, place = self.meeting, self.place
        scratch_folder = tempfile.TemporaryDirectory(prefix="fw-team-")
        with without_script(), deaf(), quiet(), scratch_folder as scratch:
            config = LaunchConfig(
                min_nodes=place.nodes,
                max_nodes=place.nodes,
                nproc_per_node=place.ranks // place.nodes,
                rdzv_backend="static" if meeting else "c10d",
                rdzv_endpoint=meeting.endpoint if meeting else "localhost:0",
                rdzv_configs={"rank": meeting.node, "timeout": int(place.patience)}
                if meeting
                else {},
                local_addr=None if meeting else "localhost",
                run_id=self.stage.id,
                max_restarts=0,  # members of a new team get pipes of their own
                monitor_interval=0.1,
                logs_specs=DefaultLogsSpecs(log_dir=scratch),
            )
            try:
                elastic_launch(config, member)(self._task)
            except ChildFailedError as error:
                self.codes |= {rank: each.exitcode for rank, each in error.failures.items()}
            except BaseException as error:
                self._error = error


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
