"""Run a plan's missing stages on this machine, side by side where it has several workers, most
urgent first.

A stage that finds one of its inputs damaged goes back into the queue, behind the input. One that
another run is at is put off: the others come first, and it is tried again from time to time.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing import connection as connections
from typing import Any

from fw.core.errors import Damaged, FwError, Interrupted, LeaseLost, PutOff
from fw.core.execution.executor import Outcome, StageListener, beyond_mending
from fw.core.execution.place import Place
from fw.core.execution.stage import execute, made_meanwhile, worker
from fw.core.machine.spawning import without_script
from fw.core.machine.stopping import deaf
from fw.core.plan.graph import Plan
from fw.core.stages.base import Stage
from fw.core.store.soundness import again
from fw.core.store.store import Store

SOONEST, LATEST, LONGER = 0.1, 10.0, 1.25
"""Seconds until a stage that another run is at is looked at again, at first and at the most, and
how many times as many the next time: its end is noticed within a quarter of the time it took."""


@dataclass
class Rest:
    """How long a stage that another run is at is left alone."""

    holder: str
    seconds: float
    until: float
    announced: bool = False


class Queue:
    """The stages still to do: which can start, and which never will."""

    def __init__(self, plan: Plan, finished: Iterable[str]):
        self.plan = plan
        self.finished = set(finished)
        self.mended: set[str] = set()
        """Stages that were done again because their products were damaged."""
        self.resting: dict[str, Rest] = {}
        """Stages that another run is, or was, at."""
        self.pending: list[Stage] = []
        self.put(stage for stage in plan.stages.values() if stage.id not in self.finished)

    def put(self, stages: Iterable[Stage]) -> None:
        self.pending = sorted(
            [*self.pending, *stages], key=lambda stage: -self.plan.priority(stage.id)
        )

    def take(self) -> Stage | None:
        """The most urgent stage whose inputs are all finished and that is not to be left alone."""
        now = time.monotonic()
        for stage in self.pending:
            rest = self.resting.get(stage.id)
            if self.ready(stage) and (rest is None or rest.until <= now):
                self.pending.remove(stage)
                return stage
        return None

    def ready(self, stage: Stage) -> bool:
        return self.finished.issuperset(stage.inputs.values())

    def put_off(self, stage: Stage, holder: str) -> None:
        """Put back a stage that another run is at, and leave it alone for a while."""
        rest = self.resting.get(stage.id)
        seconds = SOONEST if rest is None else min(LONGER * rest.seconds, LATEST)
        announced = rest is not None and rest.announced and rest.holder == holder
        self.resting[stage.id] = Rest(holder, seconds, time.monotonic() + seconds, announced)
        self.put([stage])

    def waits(self) -> dict[str, Rest]:
        """The stages that could be done now if no other run were at them."""
        ready = [stage.id for stage in self.pending if self.ready(stage)]
        return {stage: self.resting[stage] for stage in ready if stage in self.resting}

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


@dataclass(frozen=True)
class Local:
    """The executor of one machine: in this process, or with a worker for each of several places."""

    places: Sequence[Place]

    @property
    def place(self) -> Place:
        return self.places[0]

    def run(
        self,
        plan: Plan,
        finished: Iterable[str],
        listener: StageListener,
        stopping: Callable[[], bool],
    ) -> Outcome:
        if len(self.places) == 1:
            return run_here(plan, finished, self.places[0], listener, stopping)
        return run_in_workers(plan, finished, self.places, listener, stopping)


def run_here(
    plan: Plan,
    finished: Iterable[str],
    place: Place,
    listener: StageListener,
    stopping: Callable[[], bool],
) -> Outcome:
    """One stage after the other in this process."""
    queue, outcome = Queue(plan, finished), Outcome()
    while queue.pending:
        if stopping():
            outcome.stopped = True
            break
        stage = next_stage(queue, place, listener)
        if stage is None:
            if not wait_for_others(queue, listener):
                break
            continue
        listener.started(stage.id)
        try:
            execute(stage, place, listener, stopping)
        except Interrupted:
            outcome.stopped = True
            break
        except PutOff as error:
            put_off(stage, error, queue, listener)
        except Damaged as error:
            mend(stage, error.stage, error.reason, queue, outcome, listener)
        except FwError as error:
            fail(stage.id, str(error), queue, outcome, listener)
        else:
            queue.finished.add(stage.id)
            listener.done(stage.id)
    return outcome


def next_stage(queue: Queue, place: Place, listener: StageListener) -> Stage | None:
    """The most urgent stage that can be done now and that no other run is at. What others have
    finished meanwhile is noticed on the way."""
    store = Store(place.store)
    while (stage := queue.take()) is not None:
        if made_meanwhile(stage, place):
            queue.finished.add(stage.id)
            listener.done(stage.id, already=True)
        elif (holder := store.holder(stage.id)) is not None:
            queue.put_off(stage, holder)
        else:
            return stage
    return None


def wait_for_others(queue: Queue, listener: StageListener) -> bool:
    """Say once who is waited for, and wait a moment. False if nobody is."""
    waits = queue.waits()
    for stage, rest in waits.items():
        if not rest.announced:
            rest.announced = True
            listener.waiting(stage, rest.holder)
    if waits:
        time.sleep(SOONEST)
    return bool(waits)


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
            if stopping():
                stop.set()
                outcome.stopped |= bool(queue.pending)  # also what comes back unfinished
                queue.pending.clear()
            for number, seat in enumerate(seats):
                if seat.stage is None and (stage := next_stage(queue, places[number], listener)):
                    if not seat.process.is_alive():
                        seats[number] = seat = new_seat(context, places[number], stop)
                    hand_out(stage, seat, queue, outcome, listener)
            busy = [seat for seat in seats if seat.stage is not None]
            if not busy and not wait_for_others(queue, listener):
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
    with without_script(), deaf():  # and so is the worker, before it can say so itself
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
    if kind in ("progress", "metrics", "told"):
        getattr(listener, kind)(name, *rest)
        return
    seat.stage = None
    if kind == "done":
        queue.finished.add(stage.id)
        listener.done(stage.id)
    elif kind == "stopped":
        outcome.stopped = True
    elif kind == "put off":
        put_off(stage, rest[0], queue, listener)
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
        fail(stage.id, beyond_mending(damaged, reason), queue, outcome, listener)
        return
    if damaged in queue.finished:  # else another stage has said so already
        listener.told(damaged, again(reason))
        queue.mend(damaged)
    queue.put([stage])


def put_off(stage: Stage, why: PutOff, queue: Queue, listener: StageListener) -> None:
    """Leave a stage for later that another run was faster to begin, or has taken over."""
    if isinstance(why, LeaseLost):
        listener.told(stage.id, str(why))
    queue.put_off(stage, why.holder)
    queue.resting[stage.id].announced = True
    listener.waiting(stage.id, why.holder)


def fail(stage: str, reason: str, queue: Queue, outcome: Outcome, listener: StageListener) -> None:
    outcome.failed[stage] = reason
    outcome.skipped += queue.drop_dependents(stage)
    listener.failed(stage, reason)
