"""A run outlives its tracker, which is left alone once it failed, told all at the end, and no
cost of training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sites
from sites import fw, site, toy_recipe

from fw.core.job import Job

FLAKY = '''
    """A tracker that writes its calls to a file and fails at those that it is told to fail at."""

    import json
    from pathlib import Path
    from typing import ClassVar

    import fw.core.job
    from fw.core.kinds import Tracker
    from fw.core.run.untracked import Untracked
    from fw.registry import hookimpl


    class Flaky(Tracker):
        name: ClassVar[str] = "flaky"
        calls: str
        down: tuple[int, int] = (0, 0)

        def open(self, run):
            self.call("open")
            return Told(self)

        def call(self, what, *about):
            path = Path(self.calls)
            calls = path.read_text().splitlines() if path.exists() else []
            path.write_text("\\n".join([*calls, json.dumps([what, *about])]))
            fw.core.job.time.wait(1000)  # as if it took so long to answer, or not to
            if self.down[0] <= len(calls) < self.down[1]:
                raise OSError("no route to host")


    class Told(Untracked):
        handle = {"run": "1"}
        hint = "look here"

        def __init__(self, tracker):
            self.call = tracker.call

        def series(self, arm, records):
            self.call("series", arm)

        def scores(self, arm, values):
            self.call("scores", arm)

        def files(self, arm, paths):
            self.call("files", arm, [path.name for path in paths])

        def model(self, arm, weights, scores):
            self.call("model", arm)

        def note(self, markdown):
            self.call("note")

        def end_arm(self, arm, status):
            self.call("end_arm", arm, status)

        def end(self, status):
            self.call("end", status)


    @hookimpl
    def fw_components():
        return [Flaky]
'''


class Clock:
    """Time that passes only when it is told to."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, down: tuple[int, int]
) -> tuple[sites.Answer, list[list]]:
    clock = Clock()
    monkeypatch.setattr("fw.core.job.time", clock)
    monkeypatch.setattr(
        "fw.core.run.execute_stage.Job", lambda **given: Job(_started=clock.now, **given)
    )
    flaky, calls = sites.write(tmp_path / "flaky.py", FLAKY), tmp_path / "calls"
    calls.unlink(missing_ok=True)
    tracker = f"tracker={{name: flaky, calls: '{calls}', down: [{down[0]}, {down[1]}]}}"
    words = [
        "--plugin",
        flaky,
        "--set",
        tracker,
        "--out",
        tmp_path / "out",
        "--jobs",
        "1",
        "--device",
        "cpu",
    ]
    with site(tmp_path / "site"):
        answer = fw("run", toy_recipe(tmp_path), *words)
    return answer, [json.loads(line) for line in calls.read_text().splitlines()]


def told(calls: list[list]) -> set[str]:
    return {json.dumps(call) for call in calls}


def seconds(out: Path) -> dict[str, float]:
    manifests = (out / "store").glob("*/manifest.json")
    return {path.parent.name: json.loads(path.read_text())["seconds"] for path in manifests}


def test_without_an_outage_everything_is_told_and_no_stage_is_charged_for_it(tmp_path, monkeypatch):
    answer, calls = run(tmp_path, monkeypatch, (0, 0))
    assert (answer.code, answer.err.count("warning: the tracker")) == (0, 0)
    assert calls[0] == ["open"]
    assert calls[-1] == ["end", "finished"]
    assert set(seconds(tmp_path / "out").values()) == {0}


def test_a_tracker_that_failed_is_left_alone_until_the_end_and_then_told_everything(
    tmp_path, monkeypatch
):
    _, undisturbed = run(tmp_path, monkeypatch, (0, 0))
    (tmp_path / "second").mkdir()
    answer, calls = run(tmp_path / "second", monkeypatch, (1, 2))
    assert answer.code == 0, answer.err
    assert [call[0] for call in calls].count("open") == 2
    assert calls[2] == ["open"]  # after the call that failed comes the end of the run
    assert told(calls[2:]) == told(undisturbed)
    assert answer.err.count("no route to host") == 1
    assert set(seconds(tmp_path / "second" / "out").values()) == {0}


def test_a_tracker_that_stays_away_is_tried_once_more_and_the_run_ends_well(tmp_path, monkeypatch):
    answer, calls = run(tmp_path, monkeypatch, (1, 1000))
    assert answer.code == 0, answer.err
    assert [call[0] for call in calls[2:]] == ["open"]
    assert answer.err.count("running it again logs what is missing") == 1
    result = json.loads((tmp_path / "out" / "toy" / "latest" / "run.json").read_text())
    assert result["flaky"] == {"run": "1"}
    assert {arm["status"] for arm in result["arms"].values()} == {"finished"}


def test_a_failure_in_the_last_calls_is_made_up_for_too(tmp_path, monkeypatch):
    _, undisturbed = run(tmp_path, monkeypatch, (0, 0))
    (tmp_path / "second").mkdir()
    note = undisturbed.index(["note"])
    answer, calls = run(tmp_path / "second", monkeypatch, (note, note + 1))
    assert answer.code == 0, answer.err
    assert told(calls[note + 1 :]) == told(undisturbed)
    result = json.loads((tmp_path / "second" / "out" / "toy" / "latest" / "run.json").read_text())
    assert {arm["status"] for arm in result["arms"].values()} == {"finished"}
