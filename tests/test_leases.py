"""One process at a time has a lease, also where locks do nothing; who dies or sleeps loses it, and
publishes nothing; runs on one store share its stages."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from runners import FORK, Nap, Runner, naps, published

from fw.core.errors import Held, LeaseLost, OutOfOrder
from fw.core.execution.executor import Outcome
from fw.core.execution.local import run_here, run_in_workers
from fw.core.execution.place import Place
from fw.core.job import Job
from fw.core.machine import leases
from fw.core.machine.leases import Lease, create, in_turn, take
from fw.core.machine.processes import Process, boot_id
from fw.core.plan.graph import Plan
from fw.core.run.record import Turn
from fw.core.store.soundness import usable_stages
from fw.core.store.store import Store

ELSEWHERE = "another-machine"
"""A host whose processes nobody here can look up."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    store = Store(tmp_path / "store")
    store.create()
    return store.root


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of half a second that show no life by themselves."""
    monkeypatch.setattr(leases, "LEASE", 0.5)
    monkeypatch.setattr(leases, "BEAT", 3600.0)


def taken(folder: Path) -> Lease:
    """The lease, as soon as it can be had."""
    while True:
        with contextlib.suppress(Held):
            return take(folder)
        time.sleep(0.05)


def left_behind(folder: Path, process: Process, age: float = 0.0, number: int = 1) -> None:
    """A lease of a process that is no more, or far away."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{number}.lease"
    file.write_text(json.dumps({"token": secrets.token_hex(16), **asdict(process)}))
    os.utime(file, (time.time() - age,) * 2)


def all_right(plan: Plan, root: Path) -> bool:
    """Whether every stage was published once and holds what it should."""
    store = Store(root)
    counts = Counter(stage for stage, _ in published(root))
    return counts == dict.fromkeys(plan.stages, 1) and all(
        store.verify(stage.id).state == "done" and store.read(stage.id, "name.json") == stage.label
        for stage in plan.stages.values()
    )


# Several runs on one store


def seconds(count: int, plan: Plan, root: Path) -> float:
    """How long so many runs take for a plan."""
    Store(root).create()
    runners = [Runner(plan, root) for _ in range(count)]
    began = time.monotonic()
    for runner in runners:
        runner.go()
    assert [runner.end() for runner in runners] == [{}] * count
    took = time.monotonic() - began
    assert all_right(plan, root)
    return took


def test_two_runs_share_eight_stages_in_at_most_six_tenths_of_the_time_of_one(
    tmp_path: Path,
) -> None:
    plan, ratios = naps(8, 8), list[float]()
    while not ratios or (ratios[-1] > 0.6 and len(ratios) < 4):  # the machine may be busy
        alone, both = (seconds(n, plan, tmp_path / f"{len(ratios)}/{n}/store") for n in (1, 2))
        ratios.append(both / alone)
    assert min(ratios) <= 0.6, ratios


@pytest.mark.parametrize(("host", "lease"), [("", 3600.0), (ELSEWHERE, 3.0)])
def test_of_three_runs_one_is_killed_and_the_others_finish_its_stage_and_publish_nothing_twice(
    root: Path, host: str, lease: float
) -> None:
    plan = naps(6, 4)
    victim, *others = runners = [
        Runner(plan, root, lease, min(lease / 10, leases.BEAT), host if not number else "")
        for number in range(3)
    ]
    victim.go()
    stage = victim.hear("progress")[1]
    victim.signal(signal.SIGKILL)
    for runner in runners[1:]:
        runner.go()
    assert [runner.end() for runner in others] == [{}, {}]
    assert all_right(plan, root)
    assert {pid for _, pid in published(root)} <= {runner.pid for runner in others}
    assert any(("started", stage) in runner.notes for runner in others)
    held = [note for runner in others for note in runner.notes if note[0] == "waiting"]
    if host:
        assert ("waiting", stage, f"process {victim.pid} on {ELSEWHERE}") in held


def test_a_run_that_is_stopped_and_wakes_too_late_publishes_nothing_and_goes_on(root: Path) -> None:
    plan = naps(1, 6)
    [stage] = plan.stages
    sleeper, other = Runner(plan, root, 2.0, 0.2), Runner(plan, root, 2.0, 0.2)
    sleeper.go()
    sleeper.hear("progress")
    sleeper.signal(signal.SIGSTOP)
    other.go()
    assert other.hear("waiting")[2] == f"process {sleeper.pid} on {socket.gethostname()}"
    other.hear("progress")  # it has the lease
    sleeper.signal(signal.SIGCONT)
    assert sleeper.end() == other.end() == {}
    assert published(root) == [(stage, other.pid)]
    assert all_right(plan, root)
    assert any(note[:2] == ("told", stage) and "taken over" in note[2] for note in sleeper.notes)
    assert sleeper.notes[-2] == ("already", stage)


class Heard:
    """What is said of stages in this process; calls `waited` when a stage is waited for."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, ...]] = []
        self.waited = threading.Event()

    def progress(self, *_: object) -> None:
        pass

    def metrics(self, *_: object) -> None:
        pass

    def told(self, *words: str) -> None:
        self.notes.append(("told", *words))

    def started(self, stage: str, node: str = "") -> None:
        self.notes.append(("started", stage))

    def waiting(self, *words: str) -> None:
        self.notes.append(("waiting", *words))
        self.waited.set()

    def done(self, stage: str, already: bool = False) -> None:
        self.notes.append(("already" if already else "done", stage))

    def failed(self, *words: str) -> None:
        self.notes.append(("failed", *words))


@contextlib.contextmanager
def let_go_when_waited_for(stage: str, root: Path, heard: Heard) -> Iterator[None]:
    """This process is at a stage, until somebody has nothing else to do than to wait for it."""
    with contextlib.ExitStack() as held:
        held.enter_context(Store(root).lease(stage))

        def let_go() -> None:
            heard.waited.wait()
            held.close()

        letting_go = threading.Thread(target=let_go)
        letting_go.start()
        yield
        letting_go.join()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stage_that_another_run_is_at_comes_last_and_it_is_said_once_who_is_waited_for(
    root: Path, workers: int
) -> None:
    plan, heard = naps(4), Heard()
    first = next(iter(plan.stages))
    place = Place(root, "cpu", threads=1, checkpoint_seconds=20)
    with let_go_when_waited_for(first, root, heard):
        if workers == 1:
            outcome = run_here(plan, (), place, heard, lambda: False)
        else:
            outcome = run_in_workers(plan, (), [place] * workers, heard, lambda: False)
    assert outcome == Outcome()
    starts = [note[1] for note in heard.notes if note[0] == "started"]
    assert starts[-1] == first
    assert sorted(starts) == sorted(plan.stages)
    assert [note for note in heard.notes if note[0] == "waiting"] == [
        ("waiting", first, str(Process.this()))
    ]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_waits_for_another_stops_when_it_is_asked_to(root: Path, workers: int) -> None:
    plan, heard = naps(1), Heard()
    [stage] = plan.stages
    place = Place(root, "cpu", threads=1, checkpoint_seconds=20)
    with Store(root).lease(stage):
        if workers == 1:
            outcome = run_here(plan, (), place, heard, heard.waited.is_set)
        else:
            outcome = run_in_workers(plan, (), [place] * workers, heard, heard.waited.is_set)
    assert outcome == Outcome(stopped=True)
    assert heard.notes == [("waiting", stage, str(Process.this()))]


def test_what_another_run_has_finished_meanwhile_is_noticed_before_it_is_begun(root: Path) -> None:
    plan, heard = naps(3), Heard()
    place = Place(root, "cpu", threads=1, checkpoint_seconds=20)
    assert run_here(plan, (), place, Heard(), lambda: False) == Outcome()
    assert run_here(plan, (), place, heard, lambda: False) == Outcome()
    assert heard.notes == [("already", stage) for stage in plan.stages]


def test_what_a_run_that_was_killed_after_its_work_has_left_is_swept_away_and_nothing_else(
    root: Path,
) -> None:
    plan, store = naps(2), Store(root)
    place = Place(root, "cpu", threads=1, checkpoint_seconds=20)
    assert run_here(plan, (), place, Heard(), lambda: False) == Outcome()
    dead, alive = plan.stages
    left_behind(root / "locks" / dead, replace(Process.this(), pid=2**22 + 1))
    left_behind(root / "locks" / alive, Process.this())
    assert usable_stages(plan, store, Console(stderr=True)) == [dead, alive]
    assert [folder.name for folder in (root / "locks").iterdir()] == [alive]


# Leases


def hammer(folder: Path, results: Path, seconds: float) -> None:
    """Take and let go a lease for a while, and note whoever is inside at the same time. Every
    tenth time, die with it."""
    leases.LEASE, leases.BEAT = 5.0, 0.5
    fcntl.flock = fcntl.lockf = lambda *_: None
    inside = folder.with_name("inside")
    until, count = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        with contextlib.suppress(Held):
            lease = take(folder)
            try:
                os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                (results / f"both-{os.getpid()}").touch()
            time.sleep(0.001)
            inside.unlink(missing_ok=True)
            count += 1
            (results / f"{os.getpid()}").write_text(str(count))
            if count % 10 == 0:
                os._exit(1)
            lease.release()
        time.sleep(0.001)


def test_without_locks_of_the_operating_system_no_two_processes_have_a_lease(
    tmp_path: Path,
) -> None:
    folder, results = tmp_path / "locks/stage", tmp_path / "results"
    results.mkdir()

    def one_after_the_other() -> None:
        for _ in range(5):
            process = FORK.Process(target=hammer, args=(folder, results, 0.8))
            process.start()
            process.join()

    with ThreadPoolExecutor(4) as pool:
        for end in [pool.submit(one_after_the_other) for _ in range(4)]:
            end.result()
    assert not list(results.glob("both-*"))
    counts = [int(file.read_text()) for file in results.iterdir()]
    assert len(counts) > 4
    assert 10 in counts  # some died with it, and it went on


def test_of_all_who_find_a_lease_too_old_one_takes_it_over(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in range(20):
            folder = tmp_path / str(number)
            left_behind(folder, replace(Process.this(), host=ELSEWHERE), age=61)
            at_once = threading.Barrier(8)

            def won(folder: Path = folder, at_once: threading.Barrier = at_once) -> bool:
                at_once.wait()
                with contextlib.suppress(Held):
                    take(folder)
                    return True
                return False

            tries = [pool.submit(won) for _ in range(8)]
            assert [each.result() for each in tries].count(True) == 1
            assert len(list(folder.glob("*.lease"))) == 1


def test_who_was_slow_to_take_over_a_lease_takes_none_that_others_had_and_have_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "stage"
    left_behind(folder, replace(Process.this(), host=ELSEWHERE), age=61)
    others: list[Lease] = []

    def late(file: Path, token: str) -> None:
        monkeypatch.undo()
        take(folder).release()
        others.append(take(folder))
        create(file, token)

    monkeypatch.setattr(leases, "create", late)
    with pytest.raises(Held):
        take(folder)
    others[0].right.check()
    assert list(folder.iterdir()) == [others[0].right.file]


def test_who_died_while_taking_over_takes_the_lease_from_nobody(tmp_path: Path) -> None:
    lease = take(tmp_path / "stage")
    left_behind(tmp_path / "stage", replace(Process.this(), pid=2**22 + 1), number=5)
    with pytest.raises(Held, match=f"process {os.getpid()} on"):
        take(tmp_path / "stage")
    lease.release()
    take(tmp_path / "stage").release()
    assert list(tmp_path.iterdir()) == []


def test_a_holder_that_shows_life_keeps_its_lease_whatever_the_clock_of_the_machine_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE", 1.0)
    monkeypatch.setattr(leases, "BEAT", 0.1)
    monkeypatch.setattr(time, "time", lambda: 1e12)
    lease = take(tmp_path / "stage")
    for _ in range(20):
        time.sleep(0.1)
        with pytest.raises(Held, match=f"process {os.getpid()} on .* is at it"):
            take(tmp_path / "stage")
    lease.right.check()
    lease.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "dead"),
    [
        ({"pid": 2**22 + 1}, True),  # no Linux gives such a number
        ({"started": "5"}, True),  # somebody else got the number later
        ({}, False),
        ({"host": ELSEWHERE, "pid": 2**22 + 1}, False),
        ({"space": "pid:[another container]", "pid": 2**22 + 1}, False),
        ({"boot": "another machine of this name", "pid": 2**22 + 1}, False),
    ],
)
def test_only_of_a_process_that_is_known_to_be_dead_a_lease_is_taken_at_once(
    tmp_path: Path, change: dict[str, object], dead: bool
) -> None:
    process = replace(Process.this(), **change)  # type: ignore[arg-type]
    assert process.dead is dead
    left_behind(tmp_path / "stage", process)
    if dead:
        take(tmp_path / "stage").release()
        return
    with pytest.raises(Held, match=f"{process.pid} on {process.host}"):
        take(tmp_path / "stage")
    left_behind(tmp_path / "stage", process, age=61)
    take(tmp_path / "stage").release()


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("text", ["", "{", "[]", '{"token": 1}', "\x00"])
def test_a_lease_that_cannot_be_read_is_somebodys_until_it_is_too_old(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage/7.lease").write_text(text)
    with pytest.raises(Held, match="another process is at it"):
        take(tmp_path / "stage")
    lease = taken(tmp_path / "stage")
    assert [file.name for file in (tmp_path / "stage").iterdir()] == ["8.lease"]
    lease.release()


@pytest.mark.usefixtures("brief")
def test_a_lease_that_was_lost_is_no_right_to_publish_to_keep_files_or_to_let_it_go(
    root: Path,
) -> None:
    store, [stage] = Store(root), naps(1).stages.values()
    with store.lease(stage.id) as lease:
        (store.begin(stage.id) / "name.json").write_text("1")
        other = taken(lease.right.file.parent)
        with pytest.raises(LeaseLost, match=r"taken over.*published") as caught:
            store.publish(stage.id, {}, {}, {}, lease.right.check)
    assert caught.value.holder == str(Process.this())
    assert store.status(stage.id).state == "absent"
    other.right.check()
    other.release()


@pytest.mark.usefixtures("brief")
def test_what_goes_wrong_after_a_lease_was_lost_is_put_down_to_that(root: Path) -> None:
    def work() -> None:
        with Store(root).lease("nap-1") as lease:
            taken(lease.right.file.parent)
            raise FileNotFoundError("another run has published the folder")

    with pytest.raises(LeaseLost):
        work()


@pytest.mark.usefixtures("brief")
def test_a_lease_that_is_lost_during_a_stage_ends_it_at_the_next_file(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, heard = naps(1), Heard()
    [stage] = plan.stages
    folder, run = root / "locks" / stage, Nap.run

    def robbed(self: Nap, *arguments: Any) -> None:
        other = taken(folder)
        monkeypatch.undo()

        def let_go() -> None:
            heard.waited.wait()
            other.release()

        threading.Thread(target=let_go).start()
        run(self, *arguments)

    monkeypatch.setattr(Nap, "run", robbed)
    place = Place(root, "cpu", threads=1, checkpoint_seconds=20)
    assert run_here(plan, (), place, heard, lambda: False) == Outcome()
    words = [note[0] for note in heard.notes]
    assert words == ["started", "told", "waiting", "started", "done"]
    assert "nothing of this try is published" in heard.notes[1][2]


@pytest.mark.usefixtures("brief")
def test_a_run_whose_record_another_one_writes_now_writes_none(tmp_path: Path) -> None:
    folder = tmp_path / "toy/seed0"
    folder.mkdir(parents=True)
    with Turn(folder) as first:
        assert first.take()
        first.keep()
        second = Turn(folder)
        while not second.take():
            time.sleep(0.05)
        assert first.lost
        with pytest.raises(OutOfOrder, match=f"process {os.getpid()} on .* writes the record"):
            first.keep()
        first.ended = True
    assert not second.lost
    assert {file.name for file in folder.iterdir()} == {".lease", ".owner.json"}


@pytest.mark.usefixtures("brief")
def test_a_job_whose_lease_was_lost_writes_neither_files_nor_its_log(tmp_path: Path) -> None:
    lease = take(tmp_path / "locks")
    job = Job(tmp_path, holding=lease.right.check)
    job.keep("before", Path.touch)
    taken(tmp_path / "locks")
    job.log(0, {"loss": 1.0})
    for write in (job.flush, lambda: job.keep("after", Path.touch)):
        with pytest.raises(LeaseLost):
            write()
    assert {path.name for path in tmp_path.iterdir()} == {"locks", "before", "before.sha256"}


def test_whoever_waits_for_a_turn_has_it_when_the_others_have_had_theirs(tmp_path: Path) -> None:
    inside: list[int] = []

    def turn(number: int) -> int:
        with in_turn(tmp_path / "locks"):
            inside.append(number)
            assert inside == [number]
            time.sleep(0.01)
            inside.remove(number)
        return number

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(turn, range(8))) == list(range(8))


def test_a_lease_whose_file_was_deleted_can_be_taken_again(tmp_path: Path) -> None:
    with Turn(tmp_path) as turn:
        assert turn.take()
        (tmp_path / ".lease/1.lease").unlink()
        assert turn.lost
        turn.keep()
        assert not turn.lost


def test_a_lease_that_cannot_be_written_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            create(tmp_path / "1.lease", "token")
    assert list(tmp_path.iterdir()) == []


def test_why_a_stage_is_put_off_can_be_sent_by_a_worker() -> None:
    ours, theirs = FORK.Pipe()
    theirs.send(LeaseLost("it was taken over", "process 1 on x"))
    sent = ours.recv()
    assert isinstance(sent, LeaseLost)
    assert (str(sent), sent.holder) == ("it was taken over", "process 1 on x")


def test_this_process_is_alive_and_of_this_boot() -> None:
    assert not Process.this().dead
    assert Process.noted(json.loads(json.dumps(asdict(Process.this())))) == Process.this()
    assert Process.this().boot == boot_id()
