"""Run a plan's missing stages, side by side where it has several workers, most urgent first.

A stage that finds one of its inputs damaged goes back into the queue, behind the input.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection as connections
from typing import Any, Protocol

from fw.core.errors import Damaged, FwError, Interrupted, StageFailed
from fw.core.machine.stopping import deaf
from fw.core.plan.graph import Plan
from fw.core.run.execute_stage import execute, worker
from fw.core.run.listening import Listener
from fw.core.run.place import Place
from fw.core.stages.base import Stage
from fw.core.store.soundness import again

STOPPED = "stopped; everything finished is kept, and the same command continues from here"
SKIPPED = "stages that needed it were not tried; the others are finished and kept"


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

    @property
    def status(self) -> str:
        """What a tracker calls it."""
        return "killed" if self.stopped else "failed" if self.failed else "finished"

    def failure(self, plan: Plan) -> StageFailed | None:
        """Why stages failed, if any did. Raises Interrupted if the work was stopped."""
        if self.stopped:
            raise Interrupted(STOPPED)
        if not self.failed:
            return None
        lines = [f"{plan.stages[stage].title}: {reason}" for stage, reason in self.failed.items()]
        if self.skipped:
            lines.append(f"{len(self.skipped)} {SKIPPED}")
        return StageFailed("\n".join(lines))


class Queue:
    """The stages still to do: which can start, and which never will."""

    def __init__(self, plan: Plan, finished: Iterable[str]):
        self.plan = plan
        self.finished = set(finished)
        self.mended: set[str] = set()
        """Stages that were done again because their products were damaged."""
        self.pending: list[Stage] = []
        self.put(stage for stage in plan.stages.values() if stage.id not in self.finished)

    def put(self, stages: Iterable[Stage]) -> None:
        self.pending = sorted(
            [*self.pending, *stages], key=lambda stage: -self.plan.priority(stage.id)
        )

    def take(self) -> Stage | None:
        """The most urgent stage whose inputs are all finished."""
        for stage in self.pending:
            if self.finished.issuperset(stage.inputs.values()):
                self.pending.remove(stage)
                return stage
        return None

    def mend(self, damaged: str) -> None:
        """Put back a finished stage, and those that were made of it: they may have to be made
        again, too."""
        self.mended.add(damaged)
        back = {damaged}
        for stage in self.plan.stages.values():
            if stage.id in self.finished and not back.isdisjoint(stage.inputs.values()):
                back.add(stage.id)
        self.finished -= back
        self.put(self.plan.stages[stage] for stage in back)

    def drop_dependents(self, failed: str) -> list[str]:
        """Forget the stages that needed a failed one; the others go on."""
        dropped: list[str] = []
        for stage in [stage for stage in self.pending if failed in stage.inputs.values()]:
            if stage in self.pending:
                self.pending.remove(stage)
                dropped += [stage.id, *self.drop_dependents(stage.id)]
        return dropped


def run_stages(
    plan: Plan,
    finished: Iterable[str],
    places: Sequence[Place],
    listener: StageListener,
    stopping: Callable[[], bool],
) -> Outcome:
    """Do the stages that are not finished: in this process, or with a worker for each of several
    places."""
    if len(places) == 1:
        return run_here(plan, finished, places[0], listener, stopping)
    return run_in_workers(plan, finished, places, listener, stopping)


def run_here(
    plan: Plan,
    finished: Iterable[str],
    place: Place,
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
            execute(stage, place, listener, stopping)
        except Interrupted:
            outcome.stopped = True
            break
        except Damaged as error:
            mend(stage, error.stage, error.reason, queue, outcome, listener)
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
    places: Sequence[Place],
    listener: StageListener,
    stopping: Callable[[], bool],
) -> Outcome:
    """Independent stages side by side, one worker process per place; one that dies is replaced."""
    queue, outcome = Queue(plan, finished), Outcome()
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    seats = [new_seat(context, place, stop) for place in places]
    try:
        while True:
            if stopping() and not stop.is_set():
                stop.set()
                outcome.stopped = bool(queue.pending)
                queue.pending.clear()
            for number, seat in enumerate(seats):
                if seat.stage is None and (stage := queue.take()) is not None:
                    if not seat.process.is_alive():
                        seats[number] = seat = new_seat(context, places[number], stop)
                    hand_out(stage, seat, queue, outcome, listener)
            busy = [seat for seat in seats if seat.stage is not None]
            if not busy:
                return outcome
            for ready in connections.wait([seat.connection for seat in busy], timeout=0.2):
                hear(
                    next(seat for seat in busy if seat.connection is ready),
                    queue,
                    outcome,
                    listener,
                )
    finally:
        for seat in seats:
            seat.process.kill()
        for seat in seats:
            seat.process.join()


def new_seat(context: Any, place: Place, stop: Any) -> Seat:
    ours, theirs = context.Pipe()
    process = context.Process(target=worker, args=(theirs, place, stop))
    with deaf():  # and so is the worker, before it can say so itself
        process.start()
    theirs.close()
    return Seat(process, ours)


def hand_out(
    stage: Stage, seat: Seat, queue: Queue, outcome: Outcome, listener: StageListener
) -> None:
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
        fail(
            stage.id,
            f"its worker process died with exit code {code}{hint}",
            queue,
            outcome,
            listener,
        )
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
    elif kind == "damaged":
        damaged, reason = rest
        mend(stage, damaged, reason, queue, outcome, listener)
    else:
        fail(stage.id, rest[0], queue, outcome, listener)


def mend(
    stage: Stage,
    damaged: str,
    reason: str,
    queue: Queue,
    outcome: Outcome,
    listener: StageListener,
) -> None:
    """Have a damaged product made again, and then the stage that would have read it."""
    if damaged not in queue.plan.stages or (damaged in queue.finished and damaged in queue.mended):
        text = f"its input {damaged} is damaged in the store, {reason}; check the disk"
        fail(stage.id, text, queue, outcome, listener)
        return
    if damaged in queue.finished:  # else another stage has said so already
        listener.told(damaged, again(reason))
        queue.mend(damaged)
    queue.put([stage])


def fail(stage: str, reason: str, queue: Queue, outcome: Outcome, listener: StageListener) -> None:
    outcome.failed[stage] = reason
    outcome.skipped += queue.drop_dependents(stage)
    listener.failed(stage, reason)
