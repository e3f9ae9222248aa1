"""Run one stage, here or in a worker process, and pass on what it reports."""

from __future__ import annotations

import contextlib
import signal
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import torch

from fw.core.errors import Damaged, FwError, Interrupted, StageFailed
from fw.core.job import Job
from fw.core.machine.isolation import stock_state
from fw.core.machine.memory import Watch, in_words
from fw.core.machine.stopping import POLITE
from fw.core.machine.streams import sturdy
from fw.core.messages.plain import plain
from fw.core.messages.secrets import redact, redacted
from fw.core.stages.base import Stage
from fw.core.store.soundness import discard_damaged
from fw.core.store.store import Store
from fw.registry import LocalPlugin
from fw.registry.errors import in_one_line
from fw.registry.global_state import undisturbed
from fw.registry.once import one_look

REPORT_SECONDS = 0.2

TRACE = "traceback.txt"
"""What a try that failed leaves in the stage's folder."""


@dataclass(frozen=True)
class Place:
    """Where and how a stage is run; nothing of this changes what it computes, up to the device's
    arithmetic."""

    store: Path
    device: str
    threads: int
    checkpoint_seconds: float
    batch: int | None = None
    max_memory: int | None = None
    """Bytes that a process may take; see `fw.core.machine.memory`."""
    keep_dependents: bool = False
    """Whether a product stays that was made of other inputs than those in the store."""
    plugins: tuple[LocalPlugin, ...] = ()
    """Plugins that are single files: a worker process loads them before components of theirs
    arrive."""


class Listener(Protocol):
    """Who hears what the stages report."""

    def progress(self, stage: str, label: str, done: int, total: int) -> None: ...

    def metrics(self, stage: str, records: Sequence[Mapping[str, float]]) -> None: ...

    def told(self, stage: str, text: str) -> None: ...

    def waiting(self, stage: str) -> None: ...


@dataclass
class StageReporter:
    """A job's reporter that names the stage and keeps progress to a few messages a second."""

    stage: str
    listener: Listener
    _last: float = field(default=0.0)

    def progress(self, label: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done == total or now - self._last >= REPORT_SECONDS:
            self._last = now
            self.listener.progress(self.stage, label, done, total)

    def metrics(self, records: Sequence[Mapping[str, float]]) -> None:
        self.listener.metrics(self.stage, records)

    def say(self, text: str) -> None:
        self.listener.told(self.stage, text)


def execute(
    stage: Stage,
    place: Place,
    listener: Listener,
    stopping: Callable[[], bool],
) -> None:
    """Do a stage and publish its product; does nothing if it is there already, made of the present
    inputs. Damaged if one of these is: it is discarded, and has to be made again first."""
    store = Store(place.store)
    trace = store.partial(stage.id) / TRACE
    try:
        with store.lock(stage.id, lambda: listener.waiting(stage.id), stopping):
            if settled(stage, store, place.keep_dependents, listener):
                return
            if gone := [source for source in stage.inputs.values() if not store.present(source)]:
                raise StageFailed(
                    f"its input {gone[0]} is gone from the store; the same command makes it again"
                )
            made_of = store.digests(stage.inputs.values())
            if store.partial(stage.id).exists() and not store.begun(stage.id, made_of):
                listener.told(
                    stage.id,
                    "what was left of an earlier try is not of these inputs; beginning again",
                )
            perform(stage, store, made_of, place, listener, stopping)
    except Damaged as error:
        discard_damaged(error.stage, store)
        raise
    except FwError:
        raise
    except Exception as error:
        where = ""
        with contextlib.suppress(OSError):  # the disk may be full, or the folder gone
            trace.write_text(
                redact(traceback.format_exc()), encoding="utf-8", errors="backslashreplace"
            )
            where = f" (traceback in {trace})"
        raise StageFailed(f"{redact(plain(error) or in_one_line(error))}{where}") from error


def perform(
    stage: Stage,
    store: Store,
    made_of: Mapping[str, str],
    place: Place,
    listener: Listener,
    stopping: Callable[[], bool],
) -> None:
    """Do a stage and publish its product, made of inputs with these digests."""
    memory = Watch(torch.device(place.device), place.max_memory)
    job = Job(
        folder=store.begin(stage.id, made_of),
        seed=stage.seed or 0,
        device=torch.device(place.device),
        reporter=StageReporter(stage.id, listener),
        checkpoint_seconds=place.checkpoint_seconds,
        batch=place.batch,
        stopping=lambda: memory.passed or stopping(),
    )
    with memory, stock_state(job.seed, job.device, place.threads):
        try:
            stage.run(job, lambda source: store.product(source.id))
        except Interrupted:
            if memory.passed and not stopping():
                raise StageFailed(too_much(stage, memory)) from None
            raise
    if memory.passed:
        job.say(f"{too_much(stage, memory)}; it is done all the same")
    job.finish()
    (job.folder / TRACE).unlink(missing_ok=True)
    warned = {"warnings": redacted(job.warnings)} if job.warnings else {}
    facts = {
        "seconds": round(job.seconds, 3),
        "device": place.device,
        "memory": memory.peak.facts(),
        **warned,
    }
    store.publish(stage.id, stage.payload, facts, made_of)


def too_much(stage: Stage, memory: Watch) -> str:
    """What to do about a stage that takes more memory than it may."""
    assert memory.bound is not None
    taken, most = in_words(memory.anonymous or 0), in_words(memory.bound)
    remedy = stage.lighter
    if (memory.began or 0) > memory.bound:
        remedy = f"it began with {in_words(memory.began or 0)}, libraries and all, so raise that"
    return f"it takes {taken} of memory, and --max-memory is {most}: {remedy}"


def settled(stage: Stage, store: Store, keep: bool, listener: Listener) -> bool:
    """Whether the product is there and can stay; one that was made of other inputs makes way,
    unless told to `keep`."""
    if not store.path(stage.id).exists():
        return False
    if store.present(stage.id) and (keep or not store.stale(stage.id)):
        return True
    if store.present(stage.id):
        listener.told(
            stage.id, "it was made of other inputs than those in the store; doing it again"
        )
    store.discard(stage.id)
    return False


@dataclass
class Pipe:
    """A listener at the far end of a connection."""

    connection: Connection

    def progress(self, stage: str, label: str, done: int, total: int) -> None:
        self.connection.send(("progress", stage, label, done, total))

    def metrics(self, stage: str, records: Sequence[Mapping[str, float]]) -> None:
        self.connection.send(("metrics", stage, list(records)))

    def told(self, stage: str, text: str) -> None:
        self.connection.send(("told", stage, text))

    def waiting(self, stage: str) -> None:
        self.connection.send(("waiting", stage))


def worker(connection: Connection, place: Place, stop: Any) -> None:
    """The life of a worker process: stages in, reports out; ends when the parent does."""
    sturdy()
    for asked in POLITE:  # they reach the whole process group; the parent decides
        signal.signal(asked, signal.SIG_IGN)
    with one_look(), contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            connection.send(attempt(connection, place, stop.is_set))


def attempt(
    connection: Connection,
    place: Place,
    stopping: Callable[[], bool],
) -> tuple[str, ...]:
    """Receive a stage, do it, and say what became of it: `done`, `stopped` or `failed`, the stage
    and the reason; or `damaged`, the stage, what it would have read, and the reason."""
    name = ""
    try:
        with undisturbed():
            for plugin in place.plugins:
                plugin.load()
        stage: Stage = connection.recv()
        name = stage.id
        execute(stage, place, Pipe(connection), stopping)
    except EOFError:
        raise
    except Interrupted as error:
        return "stopped", name, str(error)
    except Damaged as error:
        return "damaged", name, error.stage, error.reason
    except FwError as error:
        return "failed", name, str(error)
    except Exception as error:  # the stage's components could not be imported here, say
        return "failed", name, in_one_line(error)
    return "done", name, ""
