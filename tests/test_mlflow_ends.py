"""Nothing is left over, doubled or locked in MLflow, however a process ends and however many log
one run at once."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections import Counter
from contextlib import closing
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from safetensors.torch import save_file
from sqlalchemy import event
from test_mlflow_tracker import (
    ARMS,
    LOSSES,
    SCORES,
    client_of,
    describe,
    history_lengths,
    log_all,
    root,
    run_python,
    statuses,
    template,
)
from torch import ones

from fw.plugins.trackers.mlflow import MLflow, MLflowRun

__all__ = ["root", "template"]  # fixtures


def opened(root, **changes: Any) -> MLflowRun:
    run = MLflow().open(describe(root, **changes))
    assert isinstance(run, MLflowRun)
    return run


def models(root, experiment: str) -> list:
    return list(client_of(root).search_logged_models([experiment]))


def test_ctrl_c_in_a_transaction_leaves_the_database_unlocked(root):
    run = opened(root)
    engine = run.client._tracking_client.store.engine

    def interrupt(connection, cursor, statement, *_):
        if statement.lower().startswith("insert into metrics"):
            raise KeyboardInterrupt

    event.listen(engine, "after_cursor_execute", interrupt)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            run.scores("rcg", SCORES)
    finally:
        event.remove(engine, "after_cursor_execute", interrupt)
    with closing(sqlite3.connect(root / "mlflow.db", timeout=0)) as other:
        other.execute("begin immediate")  # raises at once if it is locked
        other.rollback()
    assert caught.value.__traceback__ is not None  # whose frames still hold what was open
    run.scores("rcg", SCORES)
    run.end("killed")
    assert history_lengths(root)["rcg", "cost/nfe"] == 1


def test_two_that_log_the_same_run_by_turns_double_nothing(root, tmp_path):
    first, second = opened(root), opened(root)
    assert first.handle == second.handle
    save_file({"weight": ones(3)}, tmp_path / "model.safetensors")
    for count in (20, 60, 100):
        for run in (first, second):
            run.series("rcg", LOSSES[:count])
            run.scores("rcg", SCORES)
            run.model("rcg", tmp_path / "model.safetensors", SCORES)
    lengths = history_lengths(root)
    assert (lengths["rcg", "train/loss"], lengths["rcg", "eval/fd_pca"]) == (len(LOSSES), 1)
    assert len(models(root, first.handle["experiment_id"])) == 1


def test_four_processes_that_log_the_same_run_at_once_make_one(root, tmp_path):
    code = """
import os, sys
from pathlib import Path
import mlflow
from fw.plugins.trackers.mlflow import MLflow
from tests_describe import describe, log_all

root = Path(sys.argv[1])
for number in range(4):
    if os.fork() == 0:
        log_all(MLflow().open(describe(root)), root.parent / f"made{number}")
        os._exit(0)
sys.exit(any([os.wait()[1] for _ in range(4)]))
"""
    ended = run_python(code, tmp_path, str(root))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert statuses(root) == dict.fromkeys(
        ("", *ARMS), "FINISHED"
    )  # asserts that there is one parent
    lengths = history_lengths(root)
    assert {lengths[arm, "train/loss"] for arm in ARMS} == {len(LOSSES)}
    assert {lengths[arm, "eval/fd_pca"] for arm in ARMS} == {1}
    experiment = opened(root).handle["experiment_id"]
    assert Counter(model.tags["fw.arm"] for model in models(root, experiment)) == dict.fromkeys(
        ARMS, 1
    )


def test_a_call_that_another_client_was_faster_with_is_made_again_once(root, monkeypatch):
    run = opened(root)
    set_tag = run.client.set_tag
    failed: list[Any] = []

    def raced(*args: Any) -> None:
        if not failed:
            failed.append(args)
            raise MlflowException(
                "(sqlite3.IntegrityError) UNIQUE constraint failed: tags.key, tags.run_uuid"
            )
        set_tag(*args)

    monkeypatch.setattr(run.client, "set_tag", raced)
    run.note("verdict")
    assert len(failed) == 1
    assert (
        client_of(root).get_run(run.handle["parent_run_id"]).data.tags["mlflow.note.content"]
        == "verdict"
    )


def test_what_a_killed_process_left_beside_the_database_is_swept(root):
    for litter in (".mlflow.db.0123abcd", ".mlflow.db.0123abcd-journal"):
        (root / litter).write_bytes(b"half a database")
    opened(root)
    assert sorted(path.name for path in root.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def test_a_model_whose_upload_was_killed_is_swept_and_those_of_other_runs_are_not(root, tmp_path):
    run = opened(root)
    other = opened(root, key="seed1-4567", folder=root / "tiny" / "other")
    client, experiment = client_of(root), run.handle["experiment_id"]
    (tmp_path / "half.safetensors").write_bytes(b"half")
    half = []
    for owner in (run, other):
        tags = {"fw.arm": "rcg", "fw.key": owner.description.key}
        model = client.create_logged_model(
            experiment, "rcg", owner.handle["children"]["rcg"], tags=tags
        )
        client.log_model_artifact(model.model_id, str(tmp_path / "half.safetensors"))
        half.append(model.model_id)
    log_all(opened(root), tmp_path / "made")
    left = models(root, experiment)
    assert half[0] not in [model.model_id for model in left]
    assert not list(root.rglob(f"{half[0]}*"))
    assert [model.model_id for model in left if model.status.name == "PENDING"] == half[1:]
    assert list(root.rglob(f"{half[1]}/artifacts/half.safetensors"))


def test_a_model_that_was_uploaded_when_the_process_was_killed_is_taken_and_not_uploaded_again(
    root, tmp_path
):
    run = opened(root)
    save_file({"weight": ones(3)}, tmp_path / "model.safetensors")
    uploaded = run._upload("rcg", "fw.model", lambda model: tmp_path / "model.safetensors")
    run.model("rcg", tmp_path / "model.safetensors", SCORES)
    (model,) = models(root, run.handle["experiment_id"])
    child = client_of(root).get_run(run.handle["children"]["rcg"])
    assert child.outputs is not None
    assert (
        [model.model_id]
        == [uploaded]
        == [output.model_id for output in child.outputs.model_outputs]
    )


def test_a_run_whose_process_was_killed_can_be_closed_by_another(root, tmp_path):
    code = (
        "import json, os, signal, sys; from pathlib import Path; from tests_describe import "
        "describe;"
        "from fw.plugins.trackers.mlflow import MLflow;"
        "run = MLflow().open(describe(Path(sys.argv[1]))); run.end_arm('rcg', 'finished');"
        "print(json.dumps(dict(run.handle)), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = run_python(code, tmp_path, str(root))
    assert killed.returncode == -signal.SIGKILL
    handle = json.loads(killed.stdout)
    for status in ("killed", "failed"):
        MLflow().close(handle, root, status)
        expected = {
            "": "KILLED",
            "unconditional": "KILLED",
            "self_guidance": "KILLED",
            "rcg": "FINISHED",
        }
        assert statuses(root) == expected


def test_closing_what_is_not_there_makes_nothing(tmp_path, root):
    handle = dict(opened(root).handle)
    MLflow().close(handle, tmp_path / "empty", "killed")
    MLflow().close({}, tmp_path / "empty", "killed")
    assert not (tmp_path / "empty").exists()
    gone = {**handle, "parent_run_id": "0" * 32, "children": {"rcg": "1" * 32}}
    MLflow().close(gone, root, "killed")
    assert set(statuses(root).values()) == {"RUNNING"}
