"""Run one stage, here or in a worker process, and pass on what it reports."""

from __future__ import annotations

import contextlib
import signal
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fw.core.errors import Damaged, FwError, Interrupted, PutOff, StageFailed
from fw.core.execution.listening import Listener, Pipe, StageReporter
from fw.core.execution.place import Place
from fw.core.execution.progress import Noting, Speed, note_failure
from fw.core.execution.together import Call, Gather, nobody, together
from fw.core.execution.trace import TRACE, leave
from fw.core.execution.work import work
from fw.core.job import checkpoint_name
from fw.core.machine.leases import Lease
from fw.core.machine.stopping import POLITE
from fw.core.machine.streams import sturdy
from fw.core.messages.plain import plain
from fw.core.messages.secrets import redact, redacted
from fw.core.stages import continuing
from fw.core.stages.base import Stage
from fw.core.stages.train import TrainDenoiser
from fw.core.store.shorter import shorter
from fw.core.store.soundness import discard_damaged
from fw.core.store.store import Store
from fw.registry.errors import in_one_line
from fw.registry.global_state import undisturbed
from fw.registry.once import one_look


def execute(
    stage: Stage,
    place: Place,
    listener: Listener,
    stopping: Callable[[], bool],
    gather: Gather = nobody,
) -> None:
    """Do a stage and publish its product; does nothing if it is there already, made of the present
    inputs. Damaged if one of these is: it is discarded, and has to be made again first. PutOff if
    another run is at the stage."""
    store = Store(place.store)
    try:
        with store.lease(stage.id) as lease:
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
            perform(stage, store, made_of, place, listener, stopping, lease, gather)
    except Damaged as error:
        discard_damaged(error.stage, store)
        raise
    except (Interrupted, PutOff):
        raise
    except FwError as error:
        note_failure(stage.title, redact(str(error)), store.partial(stage.id))
        raise
    except Exception as error:
        where = leave(store.partial(stage.id), redact(traceback.format_exc()))
        reason = f"{redact(plain(error) or in_one_line(error))}{where}"
        note_failure(stage.title, reason, store.partial(stage.id))
        raise StageFailed(reason) from error


def perform(
    stage: Stage,
    store: Store,
    made_of: Mapping[str, str],
    place: Place,
    listener: Listener,
    stopping: Callable[[], bool],
    lease: Lease,
    gather: Gather = nobody,
) -> None:
    """Do a stage and publish its product, made of inputs with these digests."""

    def ending() -> bool:
        return lease.lost or stopping()

    folder = store.begin(stage.id, made_of)
    go_on(stage, store, folder, listener)
    listener = Noting(listener, folder, Speed(stage.title))
    facts: dict[str, Any] = {"device": place.device}
    if place.node:
        facts["node"] = place.node
    if place.ranks > 1 and stage.shared(place.device):
        for source in stage.inputs.values():
            store.product(source)  # which is checked once, and not by every member
        call = Call(stage, folder, place, lease.right, listener, ending)
        worked = together(call, gather)
        facts["ranks"] = place.ranks
        if place.nodes > 1:
            facts["nodes"] = place.nodes
    else:
        reporter = StageReporter(stage.id, listener)
        worked = work(stage, folder, place, store.product, reporter, ending, lease.right)
    (folder / TRACE).unlink(missing_ok=True)
    facts |= {"seconds": round(worked.seconds, 3), "memory": worked.peak.facts()}
    if worked.warnings:
        facts["warnings"] = redacted(worked.warnings)
    store.publish(stage.id, stage.payload, facts, made_of, lease.right.check)


def go_on(stage: Stage, store: Store, folder: Path, listener: Listener) -> None:
    """Begin a training with a shorter one, if the recipe wants that and nothing is begun yet."""
    if (folder / checkpoint_name("train")).exists() or (found := shorter(stage, store)) is None:
        return
    behind = f"the {found.steps} steps of {found.id}"
    if not found.kept:
        listener.told(
            stage.id, f"{behind} did not keep their optimizer: this training begins at step 0"
        )
        return
    assert isinstance(stage, TrainDenoiser)
    try:
        continuing.go_on(stage.train, store.product(found.id), found.steps, folder)
    except (Damaged, FileNotFoundError) as error:
        why = error if isinstance(error, Damaged) else f"{found.id} was removed meanwhile"
        listener.told(stage.id, f"{why}: this training begins at step 0")
    else:
        listener.told(stage.id, f"goes on from {behind}")


def made_meanwhile(stage: Stage, place: Place) -> bool:
    """Whether another run has finished a stage, of the present inputs."""
    store = Store(place.store)
    return store.present(stage.id) and (place.keep_dependents or not store.stale(stage.id))


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


def worker(connection: Connection, place: Place, stop: Any) -> None:
    """The life of a worker process: stages in, reports out; ends when the parent does."""
    sturdy()
    for asked in POLITE:  # they reach the whole process group; the parent decides
        signal.signal(asked, signal.SIG_IGN)
    with one_look(), contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            connection.send(attempt(connection.recv, place, Pipe(connection), stop.is_set))


def attempt(
    receive: Callable[[], Stage],
    place: Place,
    listener: Listener,
    stopping: Callable[[], bool],
    gather: Gather = nobody,
) -> tuple[Any, ...]:
    """Receive a stage, do it, and say what became of it: `done`, `stopped` or `failed`, the stage
    and the reason; `damaged`, the stage, what it would have read, and the reason; `put off`, the
    stage, and why."""
    name = ""
    try:
        with undisturbed():
            for plugin in place.plugins:
                plugin.load()
        stage = receive()
        name = stage.id
        execute(stage, place, listener, stopping, gather)
    except EOFError:
        raise
    except Interrupted as error:
        return "stopped", name, str(error)
    except Damaged as error:
        return "damaged", name, error.stage, error.reason
    except PutOff as error:
        return "put off", name, error
    except FwError as error:
        return "failed", name, str(error)
    except Exception as error:  # the stage's components could not be imported here, say
        return "failed", name, in_one_line(error)
    return "done", name, ""
