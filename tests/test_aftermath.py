"""A run that died has ended for its tracker as soon as any fw command looks at its runs folder
on the same machine."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest
from mlflow import MlflowClient
from sites import Answer, fw, site, toy_recipe

from fw.core.machine.processes import Process
from fw.core.run.owner import OWNER

THIS = asdict(Process.this())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A runs folder with a finished run of the toy recipe, logged to MLflow."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = toy_recipe(folder)
    with site(folder / "site"):
        done = fw(
            *("run", recipe, "--out", folder / "out", "--jobs", 1, "--device", "cpu"),
            *("--set", "tracker=mlflow"),
        )
        assert done.code == 0, done.err
        yield folder / "out"


def statuses(runs: Path, to: str | None = None) -> set[str]:
    """Those of all runs in MLflow, perhaps after they were set."""
    client = MlflowClient(f"sqlite:///{runs}/mlflow.db")
    experiment = client.get_experiment_by_name("toy")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    for run in found if to else ():
        client.update_run(run.info.run_id, status=to)
    return {client.get_run(run.info.run_id).info.status for run in found}


def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


COMMANDS: list[Callable[[Path], Answer]] = [
    lambda runs: fw("compare", runs / "toy/latest"),
    lambda runs: fw("plot", runs / "toy/latest", "--x", "nothing"),
    lambda runs: fw("sample", runs / "toy/latest", "--arm", "nobody"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=["compare", "plot", "sample"])
def test_a_run_whose_process_is_dead_is_killed_for_its_tracker_after_any_command(
    runs: Path, command: Callable[[Path], Answer]
) -> None:
    note = (runs / "toy/latest").resolve() / OWNER
    assert statuses(runs, to="RUNNING") == {"RUNNING"}
    note.write_text(json.dumps({**THIS, "pid": dead()}))
    command(runs)
    assert statuses(runs) == {"KILLED"}
    assert not note.exists()


def test_a_run_that_died_before_it_had_a_handle_is_found_by_its_key(runs: Path) -> None:
    folder = (runs / "toy/latest").resolve()
    assert statuses(runs, to="RUNNING") == {"RUNNING"}
    whole = (folder / "run.json").read_text()
    for text in (None, '{"recipe": "toy", "mlflow": [1]}', "damaged"):
        statuses(runs, to="RUNNING")
        (folder / "run.json").unlink()
        if text is not None:
            (folder / "run.json").write_text(text)
        (folder / OWNER).write_text(json.dumps({**THIS, "pid": dead()}))
        told = fw("compare", folder)
        assert statuses(runs) == {"KILLED"}, (text, told)
        assert not (folder / OWNER).exists()
        (folder / "run.json").write_text(whole)


def test_a_run_whose_folder_is_full_as_soon_as_its_tracker_is_open_has_ended(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "run.json")

    (runs / "toy/latest/run.json").unlink()  # so that the handle has to be written
    words = (
        "run",
        runs.parent / "toy.yaml",
        "--out",
        runs,
        "--jobs",
        1,
        "--device",
        "cpu",
        "--set",
        "tracker=mlflow",
    )
    with monkeypatch.context() as patch:
        patch.setattr("fw.core.run.record.write_run", full)
        answer = fw(*words)
    assert answer.code == 1
    assert "run.json: the disk is full" in answer.err
    assert statuses(runs) == {"KILLED"}
    assert fw(*words).code == 0


def test_a_copied_runs_folder_doubles_nothing_and_leaves_the_original_as_it_is(
    runs: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs, copy, symlinks=True)
    before, counted = facts(runs), counts(runs)
    again = fw(
        *("run", runs.parent / "toy.yaml", "--out", copy, "--jobs", 1, "--device", "cpu"),
        *("--set", "tracker=mlflow"),
    )
    assert again.code == 0, again.err
    assert "start " not in again.err  # nothing was done again
    assert fw("sync", "--out", copy).code == 0
    assert counts(copy) == counted
    assert facts(runs) == before
    assert set(facts(copy)) - set(before) <= {"toy/latest", "mlflow.db.lock"}


def facts(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file in a folder."""
    found = ((path, path.lstat()) for path in folder.rglob("*"))
    return {
        str(path.relative_to(folder)): (about.st_size, about.st_mtime_ns) for path, about in found
    }


def counts(folder: Path) -> dict[str, int]:
    """How much MLflow's database in a runs folder holds."""
    tables = ("runs", "metrics", "params", "logged_models", "datasets", "inputs")
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        return {
            table: connection.execute(f"select count(*) from {table}").fetchone()[0]
            for table in tables
        }


def test_runs_of_other_machines_and_of_the_living_are_left_alone(runs: Path) -> None:
    note = (runs / "toy/latest").resolve() / OWNER
    assert statuses(runs, to="RUNNING") == {"RUNNING"}
    for who in ({"host": f"not-{socket.gethostname()}", "pid": dead()}, {}):
        note.write_text(json.dumps({**THIS, **who}))
        assert COMMANDS[0](runs).code == 0
        assert statuses(runs) == {"RUNNING"}
        assert note.exists()
    note.unlink()


def test_what_cannot_be_ended_now_is_left_to_a_later_command(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = (runs / "toy/latest").resolve() / OWNER
    note.write_text(json.dumps({**THIS, "pid": dead()}))

    def away(*_: object) -> None:
        raise OSError("no server")

    monkeypatch.setattr("fw.plugins.trackers.mlflow.MLflow.close", away)
    assert COMMANDS[0](runs).code == 0
    assert json.loads(note.read_text()) == THIS  # to be found when this process has ended
    note.unlink()
