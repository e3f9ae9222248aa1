"""A run outlives its tracker, costs no more because of it, and is logged whole when it is back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import sites
from filelock import FileLock
from sites import Answer, fw, site, toy_recipe

FLAKY = '''
    """A tracker that writes its calls to a file, and is away while another file is there."""

    import json
    import threading
    from pathlib import Path
    from typing import ClassVar

    from toys import Untracked

    from fw.core.kinds import Tracker
    from fw.registry import hookimpl


    class Flaky(Tracker):
        name: ClassVar[str] = "flaky"
        calls: str
        away: str
        after: int = 0

        def open(self, run):
            self.call("open", [arm.name for arm in run.arms])
            return Told(self)

        def call(self, what, *about):
            path = Path(self.calls)
            calls = path.read_text().splitlines() if path.exists() else []
            thread = threading.current_thread().name
            path.write_text("\\n".join([*calls, json.dumps([thread, what, *about])]))
            if Path(self.away).exists() and len(calls) >= self.after:
                raise ConnectionError("no route to host")


    class Told(Untracked):
        handle = {"run": "1"}
        hint = "look here"

        def __init__(self, tracker):
            self.call = tracker.call

        def series(self, arm, records):
            self.call("series", arm, len(records))

        def scores(self, arm, values):
            self.call("scores", arm, sorted(values))

        def files(self, arm, paths):
            self.call("files", arm, [path.name for path in paths])

        def wants_model(self, arm):
            return True

        def model(self, arm, weights, scores):
            self.call("model", arm, weights.name)

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


class Ran(NamedTuple):
    answer: Answer
    calls: list[list]
    folder: Path


class Place:
    """A folder with the toy recipe, the tracker, and what `fw` makes there."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.recipe = toy_recipe(folder)
        self.flaky = sites.write(folder / "flaky.py", FLAKY)
        self.away = folder / "away"
        self.log = folder / "calls"

    def run(self, after: int = 0) -> Ran:
        tracker = f"{{name: flaky, calls: '{self.log}', away: '{self.away}', after: {after}}}"
        words = ("--plugin", self.flaky, "--set", f"tracker={tracker}", "--out", self.out)
        answer = fw("run", self.recipe, *words, "--jobs", "1", "--device", "cpu")
        return Ran(answer, self.heard(), (self.out / "toy/latest").resolve())

    def sync(self) -> Ran:
        answer = fw("sync", "--out", self.out, "--plugin", self.flaky)
        return Ran(answer, self.heard(), (self.out / "toy/latest").resolve())

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def heard(self) -> list[list]:
        """The calls since the last look: the thread's name, the call and what it was about."""
        calls = [json.loads(line) for line in self.log.read_text().splitlines()]
        self.log.unlink()
        return calls


KEPT = ("series", "files")
"""Calls of which each is told, not only the last about an arm."""


def said(calls: list[list]) -> set[str]:
    return {json.dumps(call[1:]) for call in calls}


def result(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def test_everything_is_told_by_a_thread_of_its_own_and_nothing_in_the_works(tmp_path):
    place = Place(tmp_path)
    with site(tmp_path / "site"):
        answer, calls, _ = place.run()
        assert answer.code == 0, answer.err
        assert "warning: the tracker" not in answer.err
        assert {call[0] for call in calls} == {"tracker"}
        assert calls[0][1] == "open"
        assert calls[-1][1:] == ["end", "finished"]
        assert {"series", "scores", "files", "model", "note"} <= {call[1] for call in calls}


def test_a_tracker_that_goes_away_is_told_the_rest_by_sync_and_only_once(tmp_path):
    place = Place(tmp_path)
    with site(tmp_path / "site"):
        whole = said(place.run().calls)
        fresh = Place(make(tmp_path / "second"))
        fresh.away.touch()
        answer, calls, folder = fresh.run(after=1)
        assert answer.code == 0, answer.err
        assert answer.err.count("no route to host") == 1
        assert f"`fw sync {folder}` logs it" in answer.err
        assert said(calls) < whole  # it was left alone
        assert result(folder)["flaky"] == {"run": "1"}
        assert {arm["status"] for arm in result(folder)["arms"].values()} == {"finished"}
        refused = fresh.sync()
        assert refused.answer.code == 1
        assert "no route to host); nothing is lost" in refused.answer.err
        fresh.away.unlink()
        synced = fresh.sync()
        assert synced.answer.out.endswith(": logged what was missing\n"), synced.answer
        assert said(synced.calls) == whole
        with FileLock(folder / ".lock"):  # it has nothing to write
            again = fw("sync", folder, "--plugin", fresh.flaky)
        assert again.out.endswith(": nothing was missing\n"), again
        assert not fresh.log.exists()


def test_a_run_that_begins_without_its_tracker_is_run_and_is_logged_later(tmp_path):
    place = Place(tmp_path)
    place.away.touch()
    with site(tmp_path / "site"):
        answer, calls, folder = place.run()
        assert answer.code == 0, answer.err
        assert {call[1] for call in calls} == {"open"}
        assert "flaky" not in result(folder)
        place.away.unlink()
        synced = place.sync()
        assert synced.answer.code == 0, synced.answer.err
        assert result(folder)["flaky"] == {"run": "1"}
        assert synced.calls[-1][1:] == ["end", "finished"]


def test_the_same_command_again_tells_all_as_well_and_all_arms(tmp_path):
    place = Place(tmp_path)
    with site(tmp_path / "site"):
        whole = said(place.run().calls)
        place = Place(make(tmp_path / "second"))
        place.away.touch()
        place.run(after=1)
        place.away.unlink()
        _, calls, _ = place.run(after=1)
        assert said(calls) == whole


def test_what_a_process_that_was_killed_had_to_say_is_said_by_sync_and_that_it_was_killed(
    tmp_path,
):
    place = Place(tmp_path)
    with site(tmp_path / "site"):
        folder = place.run().folder
        journal = folder / "journal.jsonl"
        lines = journal.read_text().splitlines(keepends=True)
        cut = next(at for at, line in enumerate(lines) if '"scores"' in line)
        journal.write_text("".join(lines[:cut]) + lines[cut][:20])
        calls = place.sync().calls
        assert calls[0][1] == "open"
        assert calls[-1][1:] == ["end", "killed"]
        written = [json.loads(line) for line in set(lines[:cut])]
        told = [[call["call"], call["arm"]] for call in written if call["call"] in KEPT]
        assert sorted(call[1:3] for call in calls if call[1] in KEPT) == sorted(told)


def test_a_moved_runs_folder_is_logged_from_where_it_is(tmp_path):
    place = Place(tmp_path)
    place.away.touch()
    with site(tmp_path / "site"):
        whole = said(place.run(after=1).calls)
        moved = Place(make(tmp_path / "moved"))
        place.out.rename(moved.out)
        place.away.unlink()
        answer = fw("sync", "--out", moved.out, "--plugin", place.flaky)
        assert answer.code == 0, answer.err
        assert len(said(place.heard())) > len(whole)
        assert not place.out.exists()


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_journal_that_no_tracker_can_be_told_of_is_refused_in_a_sentence(tmp_path):
    place = Place(tmp_path)
    with site(tmp_path / "site"):
        folder = place.run().folder
        journal = folder / "journal.jsonl"
        opened, *rest = journal.read_text().splitlines()[:-1]
        first = json.loads(opened)

        def refused(*lines, plugin=("--plugin", place.flaky)):
            journal.write_text("\n".join(lines) + "\n")
            answer = fw("sync", folder, *plugin)
            assert (answer.code, answer.err.count("\n")) == (1, 1), answer
            return answer.err

        unknown = json.dumps({**first, "tracker": {"name": "elsewhere"}})
        assert "no tracker named 'elsewhere'" in refused(unknown, *rest)
        assert "--plugin" in refused(opened, *rest, plugin=())
        other = json.dumps({**first, "tracker": {**first["tracker"], "colour": "red"}})
        assert "colour: Extra inputs" in refused(other, *rest)
        for line in ("[1, 2]", '{"call": "scores", "arm": 1}', '{"call": "scores", "values": 1}'):
            assert "it is damaged (no call of a tracker: " in refused(opened, line, *rest)
        broken = json.dumps({**first, "arms": 5})
        assert "it is damaged" in refused(broken, *rest)
