"""One process writes a run's record, and one that died with it is known to be dead."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sites import fw, site, toy_recipe

from fw.core.machine.stopping import Stopping
from fw.core.recipe.loading import load
from fw.core.run.owner import OWNER, abandoned, owner
from fw.core.run.record import Turn, describe, run_folder

HOLDER = """
import sys, time
from pathlib import Path
from fw.core.run.record import Turn
with Turn(Path(sys.argv[1])) as turn:
    assert turn.take()
    print("held", flush=True)
    sys.stdin.readline()
    turn.ended = True
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes the record of <tmp>/tiny/seed0."""
    folder = tmp_path / "tiny/seed0"
    folder.mkdir(parents=True)
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_record_is_written_by_one_process_which_says_who_it_is(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    folder = tmp_path / "tiny/seed0"
    assert not Turn(folder).take()
    assert owner(folder) == f"process {holder.pid} on {socket.gethostname()}"
    assert list(abandoned(tmp_path)) == []
    assert holder.stdin is not None
    holder.stdin.write("\n")
    holder.stdin.close()
    holder.wait()
    with Turn(folder) as turn:
        turn.wait(Stopping())
        assert list(abandoned(tmp_path)) == []
        turn.ended = True
    assert not (folder / OWNER).exists()
    with Turn(folder) as turn:
        assert turn.take()
    assert (folder / OWNER).exists()  # nobody said how it ended


def test_the_record_of_a_killed_process_is_abandoned_also_while_nobody_has_noticed_its_end(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    holder.send_signal(signal.SIGKILL)
    os.waitid(
        os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT
    )  # it has ended, and its parent has not noticed
    assert list(abandoned(tmp_path)) == [tmp_path / "tiny/seed0"]
    holder.wait()
    assert list(abandoned(tmp_path)) == [tmp_path / "tiny/seed0"]
    with Turn(tmp_path / "tiny/seed0") as turn:
        assert turn.take()
    assert list(abandoned(tmp_path)) == []


@pytest.mark.parametrize(
    ("change", "is_abandoned"),
    [
        ({}, False),
        ({"host": "another-machine"}, False),
        ({"host": "another-machine", "pid": 2**22}, False),
        ({"boot": "before the machine was started again"}, True),
        ({"started": "5"}, True),
        ({"pid": "text"}, False),
        ({"pid": 2**70}, False),
    ],
)
def test_only_the_dead_of_this_machine_have_abandoned_theirs(
    holder: subprocess.Popen[str], tmp_path: Path, change: dict[str, object], is_abandoned: bool
) -> None:
    note = tmp_path / "tiny/seed0" / OWNER
    note.write_text(json.dumps({**json.loads(note.read_text()), **change}))
    assert (list(abandoned(tmp_path)) != []) is is_abandoned


@pytest.mark.parametrize("damage", ["", "{", "[]", "\x00"])
def test_a_damaged_note_is_nobodys(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "tiny/seed0"
    folder.mkdir(parents=True)
    (folder / OWNER).write_text(damage)
    assert list(abandoned(tmp_path)) == []
    assert owner(folder) == "another process"


def test_a_second_run_of_the_same_recipe_works_along_and_writes_when_the_first_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toy_recipe(tmp_path)
    with site(tmp_path / "site"):
        words = ("run", recipe, "--out", tmp_path / "out", "--jobs", 1, "--device", "cpu")
        assert fw(*words).code == 0
        folder = (tmp_path / "out/toy/latest").resolve()
        first = Turn(folder)
        assert first.take()
        (folder / "run.json").unlink()
        wait, seen = Turn.wait, []

        def waited(self: Turn, stopping: Stopping) -> None:
            seen.append((folder / "run.json").exists())
            first.__exit__()
            wait(self, stopping)

        monkeypatch.setattr(Turn, "wait", waited)
        second = fw(*words)
        assert second.code == 0, second.err
        assert "writes the record of this very run; this one works along" in second.err
        assert seen == [False]
        assert (folder / "run.json").exists()
        assert not (folder / OWNER).exists()


def test_many_processes_make_the_same_run_folder_at_once(tmp_path: Path) -> None:
    recipe = toy_recipe(tmp_path)
    with site(tmp_path / "site"):
        assert fw("validate", recipe).code == 0
        loaded = load(recipe)

        def begin(number: int) -> None:
            folder = run_folder(loaded, (), tmp_path / "out")
            with Turn(folder) as turn:
                if turn.take():
                    describe(loaded, (), folder)
                    turn.ended = True

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(begin, range(400)))
    [folder] = (tmp_path / "out/toy").iterdir()
    assert {path.name for path in folder.iterdir()} <= {"recipe.resolved.yaml"}
