"""What a tracker hears of a run, and that the work does not wait for it."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from toys import Untracked

from fw.core.errors import FwError, Unreachable
from fw.core.execution.progress import Speed
from fw.core.kinds import TrackedRun
from fw.core.plan.assembly import plan
from fw.core.recipe.loading import load
from fw.core.run import calls, telling
from fw.core.run import load as load_module
from fw.core.run.board import Board, Lines
from fw.core.run.calls import End, Note, Opened, Series
from fw.core.run.journal import JOURNAL, Journal
from fw.core.run.telling import Teller
from fw.core.run.tracking import Tracking
from fw.core.store.store import Store

TINY = Path(__file__).parent / "tiny.yaml"
OPENED = Opened({"name": "mlflow"}, "tiny", "seed0", "plain", "eval/fd", [["plain", {}, None]], {})


class NoModels:
    root = Path()

    def size(self, arm: str) -> int:
        return 0

    def give(self, arm: str, tracked: TrackedRun, scores: Mapping[str, float]) -> None:
        raise AssertionError(arm)


class Listening(Untracked):
    """Remembers what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def series(self, arm: str | None, records: Sequence[Mapping[str, float]]) -> None:
        self.heard += [key for record in records for key in record if key != "step"]

    def note(self, markdown: str) -> None:
        self.heard.append(markdown)

    def end(self, status: str) -> None:
        self.heard.append(status)


def teller(folder: Path, opening: Callable[[Opened], Any], said: list[str] | None = None) -> Teller:
    folder.mkdir(exist_ok=True)
    journal = Journal(folder)
    journal.begin()
    made = Teller(journal, opening, NoModels(), (said if said is not None else []).append)
    made.put(OPENED)
    return made


def test_the_curves_of_different_encoders_do_not_share_a_name(tmp_path: Path) -> None:
    encoders = ["encoder={name: dino, steps: 1}", "arms.other={encoder: {name: dino, steps: 2}}"]
    planned, listening = plan(load(TINY, encoders)), Listening()
    tracking = Tracking(planned, Store(tmp_path), teller(tmp_path, lambda opened: listening))
    tracking.begin(OPENED)
    for stage in planned.stages.values():
        if stage.title == "encode dino, digits views":
            tracking.metrics(stage.id, [{"step": 0, "loss": 1.0}])
    assert tracking.end("finished")
    *heard, ended = listening.heard
    assert len(heard) == len(set(heard)) == 2
    assert ended == "finished"


def test_calls_do_not_wait_for_a_tracker_that_does_not_answer_and_the_end_only_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, asked = threading.Event(), threading.Event()

    class Hanging(Listening):
        def note(self, markdown: str) -> None:
            asked.set()
            answers.wait()
            super().note(markdown)

    monkeypatch.setattr(calls, "PATIENCE", 0.0)
    hanging = Hanging()
    made = teller(tmp_path, lambda opened: hanging)
    made.begin()
    made.put(Note("first"))
    assert asked.wait(60)
    for text in ("second", "third"):
        made.put(Note(text))  # returns although nobody has heard the first
    assert hanging.heard == []
    assert not made.finish()
    assert [call.facts()["markdown"] for call in Journal(tmp_path).pending()[1:]] == ["third"]
    answers.set()


def test_a_server_that_was_away_is_told_everything_when_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "AGAIN", 0.0)
    listening, answers = Listening(), threading.Event()
    said: list[str] = []
    tries: list[Opened] = []

    def opening(opened: Opened) -> TrackedRun:
        tries.append(opened)
        if len(tries) < 4:
            raise Unreachable("no server answers")
        answers.set()
        return listening

    made = teller(tmp_path, opening, said)
    made.begin()
    for call in (Series(None, [{"step": 0, "loss": 1.0}]), Note("verdict"), End("finished")):
        made.put(call)
    assert answers.wait(60)  # the end of a run does not wait for a dead server
    assert made.finish()
    assert listening.heard == ["loss", "verdict", "finished"]
    assert [text.split(";")[0] for text in said] == [
        "warning: no server answers",
        "the tracker answers again",
    ]
    assert Journal(tmp_path).pending() == []


def test_what_the_machine_does_is_said_of_the_run_and_of_the_arms_whose_stages_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_module, "EVERY", 0.0)
    heard: list[tuple[str | None, set[str]]] = []
    enough = threading.Event()

    class Watching(Listening):
        def series(self, arm: str | None, records: Sequence[Mapping[str, float]]) -> None:
            heard.append((arm, set(records[0])))
            if len(heard) > 8:
                enough.set()

    planned = plan(load(TINY))
    made = teller(tmp_path, lambda opened: Watching())
    made.watching = True
    tracking = Tracking(planned, Store(tmp_path), made)
    tracking.started(planned.arms["self_1.5"].train)
    tracking.begin(OPENED)
    assert enough.wait(60)
    assert tracking.end("finished")
    assert {arm for arm, _ in heard} == {None, "self_1.0", "self_1.5"}
    assert all("system/cpu_utilization_percentage" in keys for _, keys in heard)


@pytest.mark.parametrize("error", [FwError("the experiment is deleted"), KeyError("run")])
def test_what_does_not_pass_is_raised_before_the_work_begins(
    tmp_path: Path, error: Exception
) -> None:
    def opening(opened: Opened) -> TrackedRun:
        raise error

    with pytest.raises(type(error)):
        teller(tmp_path, opening).begin()


def test_a_call_that_is_refused_keeps_none_of_the_others(tmp_path: Path) -> None:
    class Refusing(Listening):
        def note(self, markdown: str) -> None:
            raise ValueError("too long")

    opened: list[Refusing] = []

    def opening(_: Opened) -> TrackedRun:
        opened.append(Refusing())
        return opened[-1]

    said: list[str] = []
    made = teller(tmp_path, opening, said)
    made.begin()
    for call in (Note("verdict"), Series(None, [{"step": 0, "loss": 1.0}]), End("finished")):
        made.put(call)
    assert not made.finish()
    assert [each.heard for each in opened] == [[], ["loss", "finished"]]
    assert made.refused == {"note": "the tracker raised ValueError: too long"}
    assert "ValueError: too long" in said[0]


def test_a_journal_outlives_a_crash_and_holds_what_several_tries_had_to_say(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for arm in ("plain", "guided"):
        journal.begin()
        journal.add(OPENED.__class__(**{**vars(OPENED), "arms": [[arm, {}, None]]}))
        journal.add(Series(arm, [{"step": 0, "loss": float("inf")}]))
        journal.add(Note(arm))
        journal.add(End("killed" if arm == "plain" else "finished"))
    with (tmp_path / JOURNAL).open("a") as file:
        file.write('{"call": "note", "mark')  # a crash cut it off
    journal.begin()
    opened, *pending = journal.pending()
    assert isinstance(opened, Opened)
    assert [arm[0] for arm in opened.arms] == ["plain", "guided"]
    assert pending == [
        Series("plain", [{"step": 0, "loss": float("inf")}]),
        Series("guided", [{"step": 0, "loss": float("inf")}]),
        Note("guided"),
        End("finished"),
    ]
    journal.arrived()
    assert journal.pending() == []
    journal.begin()
    assert not journal.path.exists()


def test_a_journal_that_was_damaged_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text('{"call": "note"}\n{"nothing": 1}\n')
    with pytest.raises(FwError, match=r"journal\.jsonl: it is damaged"):
        Journal(tmp_path).pending()


def test_where_there_is_no_terminal_a_long_stage_says_from_time_to_time_how_far_it_is(
    tmp_path: Path,
) -> None:
    now = 0.0

    def clock() -> float:
        return now

    planned, heard = plan(load(TINY)), io.StringIO()
    stage = planned.arms["self_1.5"].train
    title = planned.stages[stage].title
    with Board(planned, Store(tmp_path), Console(file=heard, width=40)) as board:
        board.started(stage)
        board.lines[stage] = Lines(Speed(title, clock), clock)
        for done in range(1, 61):  # two steps a second
            now = done / 2
            board.progress(stage, "train", done, 30_000)
        assert heard.getvalue().splitlines() == [
            f"start  {title}",
            f"at     {title}: 60 of 30,000, 2/s, 4 h 9 min left",
        ]
        for done in range(61, 30_001):
            now = done / 2
            board.progress(stage, "train", done, 30_000)
        board.failed(stage, "it was enough")
    *lines, failed = heard.getvalue().splitlines()
    assert 100 < len(lines) < 300  # in more than four hours
    assert failed == f"FAILED {title}: it was enough"
