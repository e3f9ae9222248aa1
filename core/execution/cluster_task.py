"""What is done on a node of a Ray cluster: a stage, whose reports go to the run's mailbox."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.reduction import ForkingPickler
from typing import Any

import ray

from fw.core.execution.cluster_nodes import Visit, arrived, unfit
from fw.core.execution.cluster_team import Spread, here
from fw.core.execution.executor import STOPPED
from fw.core.execution.place import Place
from fw.core.execution.stage import attempt
from fw.core.execution.together import nobody
from fw.core.machine.streams import sturdy
from fw.core.stages.base import Stage
from fw.registry.once import one_look

FLUSH = 30.0
"""Seconds that a stage's last reports may take to arrive."""


AGAIN = 1.0
"""Seconds between two tries to take the lease of a stage that another process is at."""


class Undone(Exception):
    """What becomes of a task whose stage is not done: `stopped`, `failed` or `damaged`, the stage,
    and the rest of what `attempt` says. Ray does not try it again, nor what needs it."""


@dataclass
class Sender:
    """A listener on a node, which leaves everything in the mailbox."""

    mailbox: Any
    last: Any = None

    def started(self, stage: str, node: str) -> None:
        self.leave("started", stage, node)

    def progress(self, stage: str, label: str, done: int, total: int) -> None:
        self.leave("progress", stage, label, done, total)

    def metrics(self, stage: str, records: Sequence[Mapping[str, float]]) -> None:
        self.leave("metrics", stage, list(records))

    def told(self, stage: str, text: str) -> None:
        self.leave("told", stage, text)

    def waiting(self, stage: str, holder: str) -> None:
        self.leave("waiting", stage, holder)

    def leave(self, *message: Any) -> None:
        self.last = self.mailbox.leave.remote(*message)

    def flush(self) -> None:
        """Wait until all of it is there: the run hears the reports before it hears the end."""
        ray.get(self.last, timeout=FLUSH)


def do(stage: str, pickled: bytes, place: Place, visit: Visit, mailbox: Any, *inputs: None) -> None:
    """Do a stage and publish its product; Undone says why it could not be.

    The stage is pickled apart from the other arguments, as a pipe to a worker process would do it,
    because the plugins that are files have to be loaded before its components arrive. `inputs` come
    from the tasks that it has to wait for.
    """
    sturdy()
    node, sender = here(), Sender(mailbox)
    sender.started(stage, node)
    sender.flush()  # a process may die at once, and it is known that it had begun

    def receive() -> Stage:
        received: Stage = ForkingPickler.loads(pickled)
        for source in received.inputs.values():
            arrived(place.store, source)
        return received

    try:
        if reason := unfit(visit):
            raise Undone("failed", stage, f"node {node} {reason}")
        with one_look(), cancellable() as cancelled:
            gather = Spread(pickled, visit) if place.nodes > 1 else nobody
            place = replace(place, node=node)
            trying = partial(attempt, receive, place, sender, cancelled, gather)
            kind, _, *rest = trying()
            if kind == "put off":  # by another run, or by a node that was lost with its lease
                sender.waiting(stage, rest[0].holder)
            while kind == "put off" and not cancelled():
                time.sleep(AGAIN)
                kind, _, *rest = trying()
        if kind == "put off":
            raise Undone("stopped", stage, STOPPED)
        if kind != "done":
            raise Undone(kind, stage, *rest)
    finally:
        sender.flush()


@contextlib.contextmanager
def cancellable() -> Iterator[Callable[[], bool]]:
    """Whether Ray has cancelled this task, which it says by interrupting the main thread.

    SIGTERM stays Ray's: the node is being shut down, and the stage is done on another.
    """
    cancelled = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: cancelled.set())
    try:
        yield cancelled.is_set
    finally:
        signal.signal(signal.SIGINT, before)
