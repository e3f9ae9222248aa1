"""Stages run here or in workers with the same bits; what fails, dies or is stopped takes only
its own with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
import toys

from fw.core.errors import StageFailed
from fw.core.execution.devices import devices
from fw.core.execution.executor import Outcome
from fw.core.execution.local import Queue, new_seat, run_here, run_in_workers
from fw.core.execution.place import Place
from fw.core.execution.stage import execute
from fw.core.files.layout import MANIFEST
from fw.core.machine.stopping import POLITE
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.loading import validate
from fw.core.recipe.source import parse
from fw.core.store.store import PROGRESS, Store

TOYS = toys.registry()


class Heard:
    """A listener that remembers, and asks to stop at a stage's first sign of progress."""

    def __init__(self, stop_at: str | None = None) -> None:
        self.starts: list[str] = []
        self.ends: list[str] = []
        self.there: list[str] = []
        self.reasons: dict[str, str] = {}
        self.logged: dict[str, list[float]] = {}
        self.said: list[str] = []
        self.stop_at = stop_at
        self.stop = False

    def progress(self, stage: str, label: str, done: int, total: int) -> None:
        self.stop |= stage == self.stop_at

    def metrics(self, stage: str, records: Sequence[Mapping[str, float]]) -> None:
        self.logged.setdefault(stage, []).extend(record["step"] for record in records)

    def told(self, stage: str, text: str) -> None:
        self.said.append(text)

    def waiting(self, stage: str, holder: str) -> None:
        raise AssertionError

    def started(self, stage: str, node: str = "") -> None:
        self.starts.append(stage)

    def done(self, stage: str, already: bool = False) -> None:
        self.ends.append(stage)
        self.there += [stage] * already

    def failed(self, stage: str, reason: str) -> None:
        self.reasons[stage] = reason


def planned(*sets: str) -> Plan:
    source = parse(toys.RECIPE, "r.yaml")
    source.set(sets)
    return plan(validate(source, TOYS))


def settings(root: Path, device: str = "cpu") -> Place:
    Store(root).create()
    return Place(root, device, threads=1, checkpoint_seconds=20)


def here(
    found: Plan, root: Path, finished: Sequence[str] = (), heard: Heard | None = None
) -> Outcome:
    heard = heard or Heard()
    return run_here(found, finished, settings(root), heard, lambda: heard.stop)


def in_workers(found: Plan, root: Path, seats: int, heard: Heard | None = None) -> Outcome:
    heard = heard or Heard()
    return run_in_workers(found, (), [settings(root)] * seats, heard, lambda: heard.stop)


def products(root: Path) -> dict[str, bytes]:
    """Every file of every stage but the manifests, which hold times, and what is said of stages
    that failed, which names folders."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != MANIFEST and "locks" not in path.parts
        if path.suffix != PROGRESS
    }


def after(found: Plan, stage: str) -> set[str]:
    """The stages that need this one, directly or not."""
    direct = {other.id for other in found.stages.values() if stage in other.inputs.values()}
    return direct.union(*(after(found, other) for other in direct))


def annotate(found: Plan, arm: str) -> str:
    stage = found.arms[arm].annotate
    assert stage is not None
    return stage


def test_here_and_in_workers_the_same_stages_make_the_same_bits(tmp_path: Path) -> None:
    found = planned("arms.coin={annotator: coin}")
    alone, together = Heard(), Heard()
    assert here(found, tmp_path / "here", heard=alone) == Outcome()
    assert in_workers(found, tmp_path / "workers", 2, together) == Outcome()
    assert products(tmp_path / "here") == products(tmp_path / "workers") != {}
    for heard in (alone, together):
        assert sorted(heard.starts) == sorted(heard.ends) == sorted(found.stages)
        assert all(heard.logged[arm.train] == [0, 3] for arm in found.arms.values())
        assert heard.logged[annotate(found, "coin")] == [0]
    assert all(Store(tmp_path / "workers").status(stage).state == "done" for stage in found.stages)
    assert multiprocessing.active_children() == []


def test_stages_start_in_order_of_urgency_among_those_that_can(tmp_path: Path) -> None:
    found, heard = planned("arms.coin={annotator: coin}"), Heard()
    here(found, tmp_path, heard=heard)
    done: set[str] = set()
    for started in heard.starts:
        ready = [
            s.id
            for s in found.stages.values()
            if s.id not in done and done.issuperset(s.inputs.values())
        ]
        assert found.priority(started) == max(map(found.priority, ready))
        done.add(started)
    assert heard.starts[0] == found.arms["self_1.5"].encode


def test_finished_stages_are_not_done_again(tmp_path: Path) -> None:
    found, heard = planned(), Heard()
    here(found, tmp_path)
    before = products(tmp_path)
    assert here(found, tmp_path, list(found.stages), heard) == Outcome()
    assert heard.starts == []
    assert here(found, tmp_path, (), heard) == Outcome()  # another run finished them meanwhile
    assert heard.starts == []
    assert heard.ends == heard.there != []
    assert products(tmp_path) == before


def test_a_failing_stage_takes_only_its_dependents_with_it_and_says_why(tmp_path: Path) -> None:
    found, heard = planned("arms.broken={annotator: broken}"), Heard()
    failing = annotate(found, "broken")
    outcome = here(found, tmp_path, heard=heard)
    trace = tmp_path / f"{failing}.partial" / "traceback.txt"
    assert (
        outcome.failed
        == heard.reasons
        == {failing: f"ValueError: the wheel came off (traceback in {trace})"}
    )
    assert set(outcome.skipped) == after(found, failing)
    assert len(outcome.skipped) == 4
    assert set(heard.ends) == found.stages.keys() - {failing} - after(found, failing)
    assert not outcome.stopped
    assert 'raise ValueError("the wheel came off")' in trace.read_text()


def test_a_mended_stage_leaves_no_trace_of_its_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = planned("arms={broken: {annotator: broken}}", "baseline=broken")
    assert here(found, tmp_path).failed
    monkeypatch.delattr(toys.Broken, "annotate")
    assert here(found, tmp_path) == Outcome()
    assert not list(tmp_path.rglob("traceback.txt"))
    assert not list(tmp_path.glob("*.partial"))


def test_a_product_that_cannot_be_published_is_a_failed_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "publish", full)
    stage = next(iter(planned().stages.values()))
    with pytest.raises(StageFailed, match="the disk is full"):
        execute(stage, settings(tmp_path), Heard(), lambda: False)


def test_a_device_that_torch_does_not_know_is_a_failed_stage(tmp_path: Path) -> None:
    stage = next(iter(planned().stages.values()))
    with pytest.raises(StageFailed, match="RuntimeError: "):
        execute(stage, settings(tmp_path, "abacus"), Heard(), lambda: False)


class Elsewhere:
    """What worker processes cannot import."""


def with_need(found: Plan, stage: str, need: object) -> None:
    object.__setattr__(found.stages[stage], "more", need)


def test_dead_workers_are_reported_and_replaced_so_that_the_rest_goes_on(tmp_path: Path) -> None:
    found = planned(
        "arms.dead_2={annotator: {name: deadly, sides: 2}}",
        "arms.dead_3={annotator: {name: deadly, sides: 3}}",
        "arms.broken={annotator: broken}",
    )
    elsewhere = found.arms["plain"].train
    with_need(found, elsewhere, Elsewhere())
    heard = Heard()
    outcome = in_workers(found, tmp_path, 1, heard)  # more deaths than seats
    dead = [annotate(found, arm) for arm in ("dead_2", "dead_3")]
    lost = {*dead, annotate(found, "broken"), elsewhere}
    assert outcome.failed == heard.reasons
    assert outcome.failed.keys() == lost
    for stage in dead:
        assert (
            outcome.failed[stage]
            == "its worker process died with exit code -9: was there too little memory?"
        )
    assert "the wheel came off" in outcome.failed[annotate(found, "broken")]
    assert outcome.failed[elsewhere].startswith("ModuleNotFoundError: ")
    assert set(outcome.skipped) == set().union(*(after(found, stage) for stage in lost))
    assert set(heard.ends) == found.stages.keys() - lost - set(outcome.skipped)
    assert multiprocessing.active_children() == []


def test_a_stage_that_cannot_be_sent_to_a_worker_fails_in_one_sentence(tmp_path: Path) -> None:
    found = planned("arms={plain: {annotator: null}}")
    stage = found.arms["plain"].train
    with_need(found, stage, lambda: None)
    outcome = in_workers(found, tmp_path, 1)
    assert outcome.failed.keys() == {stage}
    assert outcome.failed[stage].startswith("it cannot be sent to a worker process: ")
    assert set(outcome.skipped) == after(found, stage)


def test_a_stop_here_ends_the_stage_at_hand_and_starts_no_other(tmp_path: Path) -> None:
    found = planned(
        "arms={endless: {annotator: endless}, coin: {annotator: coin}}", "baseline=coin"
    )
    endless = annotate(found, "endless")
    heard = Heard(stop_at=endless)
    outcome = here(found, tmp_path, heard=heard)
    assert outcome == Outcome(stopped=True)
    assert heard.starts[-1] == endless
    assert Store(tmp_path).partial(endless).exists()
    assert Store(tmp_path).status(endless).state == "absent"


def test_a_stop_between_stages_starts_no_other(tmp_path: Path) -> None:
    heard = Heard()
    heard.stop = True
    assert here(planned(), tmp_path, heard=heard) == Outcome(stopped=True)
    assert heard.starts == []
    assert here(Plan(), tmp_path, heard=heard) == Outcome()  # nothing was left to do


def test_a_stop_ends_the_workers_stages_and_starts_no_other(tmp_path: Path) -> None:
    found = planned(
        "arms={endless: {annotator: endless}, coin: {annotator: coin}}", "baseline=coin"
    )
    endless = annotate(found, "endless")
    heard = Heard(stop_at=endless)
    outcome = in_workers(found, tmp_path, 2, heard)
    assert outcome == Outcome(stopped=True)
    assert endless not in heard.ends
    assert not after(found, endless) & set(heard.starts)
    assert multiprocessing.active_children() == []


def test_dropping_a_shared_stage_drops_everything_that_needs_it_once() -> None:
    found = planned()
    queue = Queue(found, ())
    encode = found.arms["self_1.5"].encode
    assert encode is not None
    dropped = queue.drop_dependents(encode)
    assert sorted(dropped) == sorted(after(found, encode))
    assert {stage.id for stage in queue.pending} == found.stages.keys() - set(dropped)
    assert queue.drop_dependents(encode) == []


def test_a_queue_with_nothing_ready_gives_nothing() -> None:
    found = planned()
    queue = Queue(found, ())
    taken = []
    while (stage := queue.take()) is not None:
        taken.append(stage.id)
    assert set(taken) == {stage.id for stage in found.stages.values() if not stage.inputs}


def test_cuda_devices_are_dealt_out_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices("cuda", 3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert devices("cuda:1", 2) == ["cuda:1", "cuda:1"]
    assert devices("cpu", 2) == ["cpu", "cpu"]


@pytest.mark.parametrize("number", POLITE)
def test_a_worker_that_is_just_being_started_is_deaf_to_what_stops_a_run(
    tmp_path: Path, number: signal.Signals
) -> None:
    context = multiprocessing.get_context("spawn")
    found = planned("arms={plain: {annotator: null}}")
    stop = context.Event()
    seat = new_seat(context, settings(tmp_path), stop)
    try:
        os.kill(seat.process.pid, number)
        seat.connection.send(found.stages[found.arms["plain"].train])
        while (heard := seat.connection.recv()[0]) not in ("done", "failed", "stopped"):
            pass
        assert heard == "done"
    finally:
        seat.process.kill()
        seat.process.join()
