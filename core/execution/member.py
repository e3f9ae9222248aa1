"""One process of a team: it joins the others, does its part of a stage, and says how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing import connection as connections
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from fw.core.errors import FwError, Interrupted
from fw.core.execution.listening import Pipe, StageReporter
from fw.core.execution.place import Place
from fw.core.execution.work import Worked, work
from fw.core.job import Reporter, Silent
from fw.core.machine.leases import Right
from fw.core.machine.streams import sturdy
from fw.core.machine.team import Team
from fw.core.messages.plain import plain
from fw.core.messages.secrets import redact
from fw.core.stages.base import Stage
from fw.core.store.store import Store
from fw.registry.errors import in_one_line
from fw.registry.global_state import undisturbed
from fw.registry.once import one_look

STOP, END = 0, 1
"""Places of what members are to do in `Member.signals`."""


@dataclass(frozen=True)
class Here:
    """A member has started, with this process id."""

    process: int


@dataclass(frozen=True)
class Done:
    """It has done its part."""

    worked: Worked


@dataclass(frozen=True)
class Stopped:
    """It was stopped."""

    reason: str


@dataclass(frozen=True)
class Failed:
    """It raised an error."""

    rank: int
    reason: str
    own: bool
    """Whether it may be its own, or come of another's end; members that do the same raise the same
    FwError."""
    trace: str = ""
    waited: bool = False
    """Whether it was waiting for another: that one's error matters more."""


@dataclass(frozen=True)
class Member:
    """What a process needs to know."""

    stage: Stage
    folder: Path
    place: Place
    right: Right
    """That of the process that began the team, to work on the stage."""
    links: tuple[connections.Connection, ...]
    """For each member of this node where it says how it is."""
    signals: Any
    """Two bytes that all processes share."""

    def stop(self) -> None:
        """Have all stop at the next step."""
        self.signals[STOP] = 1

    def end(self) -> None:
        """Have all end at once."""
        self.signals[END] = 1

    @property
    def stopping(self) -> bool:
        return bool(self.signals[STOP])


def member(task: Member) -> None:
    """The life of a member; the environment says which it is."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local = int(os.environ["LOCAL_RANK"])
    link = task.links[local]
    for other in task.links:
        if other is not link:
            other.close()
    link.send(Here(os.getpid()))
    listen(task)
    place = replace(task.place, device=device_of(task.place, local))
    try:
        with one_look(), joined(place, rank, size) as team, undisturbed():
            for plugin in place.plugins:
                plugin.load()
            reporter: Reporter = StageReporter(task.stage.id, Pipe(link)) if rank == 0 else Silent()
            product = Store(place.store).path  # it was checked before the team began
            worked = work(
                task.stage,
                task.folder,
                place,
                product,
                reporter,
                lambda: task.stopping,
                task.right,
                team,
            )
            team.wait()
        link.send(Done(worked))
    except Interrupted as error:
        link.send(Stopped(str(error)))
    except FwError as error:
        link.send(Failed(rank, str(error), own=False))
    except Exception as error:
        trace = redact(traceback.format_exc())
        link.send(Failed(rank, said(error, place), True, trace, waited(error)))


def device_of(place: Place, local: int) -> str:
    """That of one of a node's members: a team's GPUs follow each other."""
    device = torch.device(place.device)
    return place.device if device.type == "cpu" else f"cuda:{(device.index or 0) + local}"


@contextlib.contextmanager
def joined(place: Place, rank: int, size: int) -> Iterator[Team]:
    """The team, on whose GPUs tensors are exchanged by NCCL; elsewhere by gloo."""
    cuda = torch.device(place.device).type == "cuda"
    if cuda:
        torch.cuda.set_device(place.device)
    patience = timedelta(seconds=place.patience)
    dist.init_process_group("nccl" if cuda else "gloo", timeout=patience)
    try:
        control = dist.new_group(backend="gloo", timeout=patience) if cuda else None
        yield Team(rank, size, control)
    finally:
        dist.destroy_process_group()


def listen(task: Member) -> None:
    """Stop when the run says so, or SIGTERM; end with the run, however it ends.

    Ctrl-C and a closed terminal reach all processes of a terminal, and the run decides. The agent
    sends SIGTERM to the others when one has died, a cluster to all when time is up.
    """
    sturdy()
    for number in (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: task.stop())
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    threading.Thread(target=end_with, args=(task, parent_process()), daemon=True).start()


def end_with(task: Member, parent: Any) -> None:
    while not task.signals[END] and parent.is_alive():
        time.sleep(0.1)
    os._exit(1)


def said(error: Exception, place: Place) -> str:
    """The error in words; where it is that another member did not come, that."""
    if not waited(error):
        return redact(plain(error) or in_one_line(error))
    return f"another rank did not answer within {place.patience:g} seconds, or is gone"


def waited(error: Exception) -> bool:
    """Whether an exchange failed; gloo's errors have no class of their own."""
    words = (
        "gloo",
        "Timed out",
        "timeout",
        "Connection closed",
        "Connection reset",
        "pair closure",
    )
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)
