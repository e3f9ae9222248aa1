"""Run a plan's missing stages, side by side where it has several workers, most urgent first."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection as connections
from typing import Any, Protocol

import torch

from fw.core.errors import FwError, Interrupted
from fw.core.machine.stopping import deaf
from fw.core.plan.graph import Plan
from fw.core.run.work import Listener, Settings, execute, worker
from fw.core.stages.base import Stage


class StageListener(Listener, Protocol):
    """A listener that also hears how stages start and end."""

    def started(self, stage: str) -> None: ...

    def done(self, stage: str) -> None: ...

    def failed(self, stage: str, reason: str) -> None: ...


@dataclass
class Outcome:
    """What became of the stages: why some failed, and which could not be tried because of that."""

    failed: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    stopped: bool = False


def known_device(name: str) -> torch.device:
    """What `--device` names, if fw runs on it; whether it is here is another question."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise FwError(f"--device {name}: no such device; use auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise FwError(f"--device {name}: fw runs on cpu and cuda; use auto, cpu, cuda or cuda:N")
    return device


def checked_device(name: str) -> str:
    """The device that `--device` asks for, if it is here."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    device = known_device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise FwError(f"--device {name}: torch sees {torch.cuda.device_count()} CUDA devices here; use --device cpu")
    return name


def devices(device: str, jobs: int) -> list[str]:
    """One device per job: CUDA devices in turn, or the one that was asked for."""
    if device == "cuda":
        return [f"cuda:{number % torch.cuda.device_count()}" for number in range(jobs)]
    return [device] * jobs


class Queue:
    """The stages still to do: which can start, and which never will."""

    def __init__(self, plan: Plan, finished: Iterable[str]):
        self.finished = set(finished)
        self.pending = sorted(
            (stage for stage in plan.stages.values() if stage.id not in self.finished),
            key=lambda stage: -plan.priority(stage.id),
        )

    def take(self) -> Stage | None:
        """The most urgent stage whose inputs are all finished."""
        for stage in self.pending:
            if self.finished.issuperset(stage.inputs.values()):
                self.pending.remove(stage)
                return stage
        return None

    def drop_dependents(self, failed: str) -> list[str]:
        """Forget the stages that needed a failed one; the others go on."""
        dropped: list[str] = []
        for stage in [stage for stage in self.pending if failed in stage.inputs.values()]:
            if stage in self.pending:
                self.pending.remove(stage)
                dropped += [stage.id, *self.drop_dependents(stage.id)]
        return dropped


def run_here(
    plan: Plan,
    finished: Iterable[str],
    settings: Settings,
    listener: StageListener,
    stopping: Callable[[], bool],
) -> Outcome:
    """One stage after the other in this process."""
    queue, outcome = Queue(plan, finished), Outcome()
    while (stage := queue.take()) is not None:
        if stopping():
            outcome.stopped = True
            break
        listener.started(stage.id)
        try:
            execute(stage, settings, listener, stopping)
        except Interrupted:
            outcome.stopped = True
            break
        except FwError as error:
            fail(stage.id, str(error), queue, outcome, listener)
        else:
            queue.finished.add(stage.id)
            listener.done(stage.id)
    return outcome


@dataclass
class Seat:
    """A worker process, its end of the pipe, and the stage it is at."""

    process: Any
    connection: connections.Connection
    stage: Stage | None = None


def run_in_workers(
    plan: Plan,
    finished: Iterable[str],
    settings: Sequence[Settings],
    listener: StageListener,
    stopping: Callable[[], bool],
) -> Outcome:
    """Independent stages side by side, one worker process per entry of `settings`; one that dies is replaced."""
    queue, outcome = Queue(plan, finished), Outcome()
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    seats = [new_seat(context, each, stop) for each in settings]
    try:
        while True:
            if stopping() and not stop.is_set():
                stop.set()
                outcome.stopped = bool(queue.pending)
                queue.pending.clear()
            for place, seat in enumerate(seats):
                if seat.stage is None and (stage := queue.take()) is not None:
                    if not seat.process.is_alive():
                        seats[place] = seat = new_seat(context, settings[place], stop)
                    hand_out(stage, seat, queue, outcome, listener)
            busy = [seat for seat in seats if seat.stage is not None]
            if not busy:
                return outcome
            for ready in connections.wait([seat.connection for seat in busy], timeout=0.2):
                hear(next(seat for seat in busy if seat.connection is ready), queue, outcome, listener)
    finally:
        for seat in seats:
            seat.process.kill()
        for seat in seats:
            seat.process.join()


def new_seat(context: Any, settings: Settings, stop: Any) -> Seat:
    ours, theirs = context.Pipe()
    process = context.Process(target=worker, args=(theirs, settings, stop))
    with deaf():  # and so is the worker, before it can say so itself
        process.start()
    theirs.close()
    return Seat(process, ours)


def hand_out(stage: Stage, seat: Seat, queue: Queue, outcome: Outcome, listener: StageListener) -> None:
    listener.started(stage.id)
    try:
        seat.connection.send(stage)
        seat.stage = stage
    except Exception as error:
        fail(stage.id, f"it cannot be sent to a worker process: {error}", queue, outcome, listener)


def hear(seat: Seat, queue: Queue, outcome: Outcome, listener: StageListener) -> None:
    """Take in one message of a worker."""
    assert seat.stage is not None
    stage = seat.stage
    try:
        kind, name, *rest = seat.connection.recv()
    except (EOFError, OSError):
        seat.process.join()
        seat.stage = None
        code = seat.process.exitcode
        hint = ": was there too little memory?" if code == -signal.SIGKILL else ""
        fail(stage.id, f"its worker process died with exit code {code}{hint}", queue, outcome, listener)
        return
    if kind in ("progress", "metrics", "told", "waiting"):
        getattr(listener, kind)(name, *rest)
        return
    seat.stage = None
    if kind == "done":
        queue.finished.add(stage.id)
        listener.done(stage.id)
    elif kind == "stopped":
        outcome.stopped = True
    else:
        fail(stage.id, rest[0], queue, outcome, listener)


def fail(stage: str, reason: str, queue: Queue, outcome: Outcome, listener: StageListener) -> None:
    outcome.failed[stage] = reason
    outcome.skipped += queue.drop_dependents(stage)
    listener.failed(stage, reason)
