"""What the MLflow tracker promises, against a real MLflow on sqlite, and the server behind `fw
ui`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image
from safetensors.torch import load_file, save_file

from fw.core.errors import FwError
from fw.core.kinds import ArmDescription, RunDescription, TrackedRun
from fw.core.plan.assembly import plan
from fw.core.recipe.loading import load
from fw.core.run.tracking import named
from fw.core.stages.base import Stage
from fw.plugins.trackers.mlflow import MLflow, MLflowRun
from fw.plugins.trackers.mlflow_server import serve
from fw.plugins.trackers.mlflow_uris import sqlite_uri
from fw.plugins.trackers.mlflow_view import view_state

ARMS = ("unconditional", "self_guidance", "rcg")
LOSSES = [
    {"step": step, "train/loss": 1 / (1 + step), "train/norm": 2.0} for step in range(0, 1000, 10)
]
SCORES = {"eval/fd_pca": 0.4, "cost/nfe": 35.0}


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables: making them takes seconds, copying it does not."""
    root = tmp_path_factory.mktemp("template")
    MLflow(experiment="template").open(describe(root))
    return root / "mlflow.db"


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    """A runs folder, with a name that has to be quoted in URIs."""
    folder = tmp_path / "my runs? 50%20#1"
    folder.mkdir()
    shutil.copy(template, folder / "mlflow.db")
    return folder


def describe(root: Path, **changes: Any) -> RunDescription:
    arms = [ArmDescription(name, {"guidance.name": name, "train.steps": "1000"}) for name in ARMS]
    folder = root / "tiny" / "seed0-0123"
    plain = RunDescription(
        "tiny", "seed0-0123", folder, root, ARMS[0], "eval/fd_pca", arms, {"fw.version": "1"}, None
    )
    return plain._replace(**changes)


def log_all(run: TrackedRun, folder: Path) -> None:
    """What a run that goes well tells its tracker."""
    folder.mkdir(exist_ok=True)
    Image.new("L", (8, 8)).save(folder / "grid.png")
    save_file({"weight": torch.ones(3)}, folder / "model.safetensors")
    for arm in ARMS:
        run.series(arm, LOSSES)
        run.scores(arm, SCORES)
        run.files(arm, [folder / "grid.png"])
        run.model(arm, folder / "model.safetensors", SCORES)
        run.end_arm(arm, "finished")
    run.series(None, [{"step": 0, "encoder/loss": 1.0}])
    run.note("self_guidance wins")
    run.end("finished")


def client_of(root: Path) -> MlflowClient:
    return MlflowClient(sqlite_uri(root / "mlflow.db"))


def parent_and_children(root: Path) -> tuple[Run, dict[str, Run]]:
    client = client_of(root)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [
        run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    ]
    assert len(runs) == 1 + len(children)
    return parent, {run.info.run_name: run for run in children}


def history_lengths(root: Path) -> dict[tuple[str, str], int]:
    parent, children = parent_and_children(root)
    client = client_of(root)
    return {
        (run.info.run_name, key): len(client.get_metric_history(run.info.run_id, key))
        for run in (parent, *children.values())
        for key in run.data.metrics
    }


def statuses(root: Path) -> dict[str, str]:
    parent, children = parent_and_children(root)
    return {"": parent.info.status, **{name: child.info.status for name, child in children.items()}}


def test_a_run_becomes_one_parent_with_one_finished_child_per_arm(root, tmp_path):
    log_all(MLflow().open(describe(root)), tmp_path / "made")
    parent, children = parent_and_children(root)
    assert set(children) == set(ARMS)
    assert set(statuses(root).values()) == {"FINISHED"}
    assert parent.data.tags["fw.role"] == "recipe"
    assert parent.data.tags["mlflow.note.content"] == "self_guidance wins"
    for name, child in children.items():
        assert child.data.tags["fw.role"] == "arm"
        assert child.data.tags["fw.arm"] == name
        assert child.data.tags["fw.key"] == "seed0-0123"
        assert child.data.params == {"guidance.name": name, "train.steps": "1000"}
        assert child.data.metrics == {"train/loss": 1 / 991, "train/norm": 2.0, **SCORES}


def test_the_baseline_is_grey_and_every_arm_has_a_colour_of_its_own(root):
    arms = [ArmDescription(f"arm{number}", {}) for number in range(12)]
    MLflow().open(describe(root, arms=arms, baseline="arm5"))
    _, children = parent_and_children(root)
    colours = {name: child.data.tags["mlflow.runColor"] for name, child in children.items()}
    assert len(set(colours.values())) == 12
    red, green, blue = (colours["arm5"][at : at + 2] for at in (1, 3, 5))
    assert red == green == blue


def test_artifacts_lie_in_the_root_of_the_run_below_the_runs_folder(root, tmp_path):
    run = MLflow().open(describe(root))
    log_all(run, tmp_path / "made")
    client = client_of(root)
    for child in run.handle["children"].values():
        assert "grid.png" in [file.path for file in client.list_artifacts(child)]
    assert len(list(root.glob("mlartifacts/tiny/*/artifacts/grid.png"))) == len(ARMS)


def test_uploading_a_file_again_replaces_it_and_charts_it_once(root, tmp_path):
    run = MLflow().open(describe(root))
    for _ in range(2):
        log_all(run, tmp_path / "made")
    (tmp_path / "report.md").write_text("first")
    run.files(None, [tmp_path / "report.md"])
    (tmp_path / "report.md").write_text("second")
    run.files(None, [tmp_path / "report.md"])
    (report,) = root.glob("mlartifacts/tiny/*/artifacts/report.md")
    assert report.read_text() == "second"
    pictures = [
        file.path
        for file in client_of(root).list_artifacts(run.handle["children"]["rcg"], "images")
    ]
    assert sum(path.endswith(".png") for path in pictures) == 1


@pytest.mark.parametrize("remembered", [True, False])
def test_a_run_that_is_opened_again_logs_nothing_twice(root, tmp_path, remembered):
    first = MLflow().open(describe(root))
    log_all(first, tmp_path / "made")
    before = history_lengths(root)
    again = MLflow().open(
        describe(root, previous=json.loads(json.dumps(first.handle)) if remembered else None)
    )
    assert again.handle == first.handle
    assert statuses(root) == {"": "RUNNING", **dict.fromkeys(ARMS, "FINISHED")}
    log_all(again, tmp_path / "made")
    assert history_lengths(root) == before
    assert before["rcg", "train/loss"] == len(LOSSES)
    assert before["rcg", "eval/fd_pca"] == 1
    assert set(statuses(root).values()) == {"FINISHED"}


def test_an_arm_whose_record_is_complete_is_not_called_for(root, tmp_path, monkeypatch):
    log_all(MLflow().open(describe(root)), tmp_path / "made")
    again = MLflow().open(describe(root))
    assert isinstance(again, MLflowRun)
    ids = {again.runs[arm].id for arm in ARMS}
    calls = spied(again, monkeypatch)
    log_all(again, tmp_path / "made")
    assert again.pictures == ["eval/grid"]
    assert not [call for call in calls if ids & set(map(str, call[1:])) and call[0] != "get_run"]
    assert set(statuses(root).values()) == {"FINISHED"}


def spied(run, monkeypatch):
    """The calls of MLflow's client: name and arguments."""
    calls = []

    class Spy:
        def __getattr__(self, name):
            def called(*args, **kwargs):
                calls.append((name, *args, *kwargs.values()))
                return getattr(client, name)(*args, **kwargs)

            return called

    client = run.client
    monkeypatch.setattr(run, "client", Spy())
    return calls


def test_an_arm_with_a_new_score_is_opened_again_and_is_complete_with_that_one(
    root, tmp_path, monkeypatch
):
    log_all(MLflow().open(describe(root)), tmp_path / "made")
    better = {**SCORES, "eval/fd_pca": 0.3}
    again = MLflow().open(describe(root))
    again.scores("rcg", better)
    assert statuses(root)["rcg"] == "RUNNING"
    assert parent_and_children(root)[1]["rcg"].data.tags["fw.logged"] == ""
    again.end_arm("rcg", "finished")
    again.end("finished")
    last = MLflow().open(describe(root))
    calls = spied(last, monkeypatch)
    last.scores("rcg", better)
    assert calls == []
    last.scores("rcg", SCORES)
    assert parent_and_children(root)[1]["rcg"].data.metrics["eval/fd_pca"] == 0.4


def test_an_arm_that_was_killed_is_logged_again(root, tmp_path):
    first = MLflow().open(describe(root))
    log_all(first, tmp_path / "made")
    first.end_arm("rcg", "killed")
    again = MLflow().open(describe(root))
    assert statuses(root)["rcg"] == "RUNNING"
    log_all(again, tmp_path / "made")
    assert set(statuses(root).values()) == {"FINISHED"}


def test_a_resumed_series_continues_after_its_last_step(root):
    first = MLflow().open(describe(root))
    first.series("rcg", LOSSES[:60])
    MLflow().open(describe(root, previous=first.handle)).series("rcg", LOSSES[40:])
    assert history_lengths(root)["rcg", "train/loss"] == len(LOSSES)


def test_a_score_that_changed_is_shown_as_it_is_now(root):
    run = MLflow().open(describe(root))
    run.scores("rcg", {"eval/fd_pca": 0.5})
    time.sleep(0.002)  # MLflow's clock has milliseconds, and the latest counts
    run.scores("rcg", {"eval/fd_pca": 0.3})
    assert parent_and_children(root)[1]["rcg"].data.metrics["eval/fd_pca"] == 0.3


def test_values_that_are_not_finite_are_left_out(root):
    run = MLflow().open(describe(root))
    run.scores("rcg", {"eval/fd_pca": float("nan"), "eval/kid": float("inf"), "cost/nfe": 3.0})
    assert parent_and_children(root)[1]["rcg"].data.metrics == {"cost/nfe": 3.0}


def test_a_handle_of_another_store_or_of_a_deleted_run_starts_a_new_one(root):
    first = MLflow().open(describe(root))
    elsewhere = {**first.handle, "tracking_uri": "sqlite:////elsewhere/mlflow.db"}
    other = MLflow().open(
        describe(root, key="seed1-4567", folder=root / "tiny" / "other", previous=elsewhere)
    )
    assert other.handle["parent_run_id"] != first.handle["parent_run_id"]
    for run in (first.handle["parent_run_id"], *first.handle["children"].values()):
        client_of(root).delete_run(run)
    fresh = MLflow().open(describe(root, previous=first.handle))
    assert fresh.handle["parent_run_id"] not in (
        first.handle["parent_run_id"],
        other.handle["parent_run_id"],
    )
    assert set(fresh.handle["children"]) == set(ARMS)


@pytest.mark.parametrize(("word", "status"), [("failed", "FAILED"), ("killed", "KILLED")])
def test_ending_a_run_ends_the_arms_that_had_not_ended(root, word, status):
    run = MLflow().open(describe(root))
    run.end_arm("unconditional", "finished")
    run.end(word)
    assert statuses(root) == {
        "": status,
        "unconditional": "FINISHED",
        "self_guidance": status,
        "rcg": status,
    }


def test_what_a_killed_process_left_running_is_taken_up_and_ended(root, tmp_path):
    code = (
        "import os, signal; from pathlib import Path; from tests_describe import describe;"
        "from fw.plugins.trackers.mlflow import MLflow;"
        f"run = MLflow().open(describe(Path({str(root)!r}))); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = run_python(code, tmp_path)
    assert killed.returncode == -signal.SIGKILL
    assert set(statuses(root).values()) == {"RUNNING"}
    MLflow().open(describe(root)).end("finished")
    assert set(statuses(root).values()) == {"FINISHED"}


def test_long_params_tags_and_notes_are_shortened(root):
    arms = [
        ArmDescription(
            "unconditional", {"prompt": "x" * 20000, **{f"key{n}": "1" for n in range(150)}}
        )
    ]
    run = MLflow().open(describe(root, arms=arms, tags={"words": "y" * 20000}))
    run.note("z" * 20000)
    run.end("finished")
    parent, children = parent_and_children(root)
    params = children["unconditional"].data.params
    assert len(params) == 151
    assert params["prompt"].endswith("x ...")
    assert parent.data.tags["words"].endswith("y ...")
    assert len(parent.data.tags["mlflow.note.content"]) == 8000
    assert "z\n\n... The whole is in `report.md`" in parent.data.tags["mlflow.note.content"]
    MLflow().open(describe(root, arms=arms)).end("finished")


def test_a_long_series_takes_few_calls(root, monkeypatch):
    run = MLflow().open(describe(root))
    assert isinstance(run, MLflowRun)
    sizes = []
    real = run.client.log_batch

    def counted(run_id, metrics=(), params=(), tags=(), synchronous=None):
        sizes.append(len(metrics))
        return real(run_id, metrics=metrics, params=params, tags=tags, synchronous=synchronous)

    monkeypatch.setattr(run.client, "log_batch", counted)
    run.series(
        "rcg", [{"step": step, "train/loss": 1.0, "train/norm": 2.0} for step in range(1250)]
    )
    assert sizes == [1000, 1000, 500]
    assert history_lengths(root)["rcg", "train/loss"] == 1250


def test_the_weights_are_a_model_of_mlflow_that_is_found_by_its_score(root, tmp_path):
    for _ in range(2):
        run = MLflow().open(describe(root))
        log_all(run, tmp_path / "made")
    client, experiment = client_of(root), run.handle["experiment_id"]
    models = client.search_logged_models([experiment], filter_string="metrics.`eval/fd_pca` < 0.5")
    assert Counter(model.source_run_id for model in models) == Counter(
        run.handle["children"].values()
    )
    assert {model.status.name for model in models} == {"READY"}
    assert (
        client.search_logged_models([experiment], filter_string="metrics.`eval/fd_pca` < 0.3") == []
    )
    (weights, *_) = root.glob("mlartifacts/tiny/models/*/artifacts/model.safetensors")
    assert torch.equal(load_file(weights)["weight"], torch.ones(3))
    child = client.get_run(run.handle["children"]["rcg"])
    assert child.outputs is not None
    assert [output.model_id for output in child.outputs.model_outputs] == [
        child.data.tags["fw.model"]
    ]


def test_the_saved_view_shows_this_runs_arms_ordered_by_the_headline(root, tmp_path):
    run = MLflow().open(describe(root))
    MLflow().open(describe(root, key="seed1-4567", folder=root / "tiny" / "other"))
    client, experiment = client_of(root), run.handle["experiment_id"]
    log_all(run, tmp_path / "made")
    tags = client.get_experiment(experiment).tags
    state = json.loads(json.loads(tags["mlflow.sharedViewState.fw-seed0-0123"])["state"])
    bars, grids = state["compareRunCharts"]
    assert (bars["metricKey"], grids["imageKeys"]) == ("eval/fd_pca", ["eval/grid"])
    time.sleep(0.002)
    for number, name in enumerate(ARMS):
        run.scores(name, {"eval/fd_pca": 1.0 - number})
    order = f"{state['orderByKey']} {'ASC' if state['orderByAsc'] else 'DESC'}"
    found = client.search_runs([experiment], state["searchFilter"], order_by=[order])
    assert [arm.info.run_name for arm in found] == list(reversed(ARMS))
    assert not view_state(describe(root, better="higher"), [])["orderByAsc"]
    assert "params.`guidance.name`" in state["selectedColumns"]
    assert "params.`train.steps`" not in state["selectedColumns"]
    assert "viewStateShareKey=fw-seed0-0123" in run.hint
    assert run.hint.startswith(f"fw ui --out '{root}'")


def test_four_processes_that_are_first_at_once_leave_a_healthy_database(tmp_path):
    root = tmp_path / "runs"
    code = """
import os, sys
from pathlib import Path
import mlflow
from fw.plugins.trackers.mlflow import MLflow
from tests_describe import describe

root = Path(sys.argv[1])
for number in range(4):
    if os.fork() == 0:
        run = MLflow().open(describe(root, key=f"key{number}", folder=root / f"key{number}"))
        run.scores("rcg", {"eval/fd_pca": 1.0})
        run.end("finished")
        os._exit(0)
sys.exit(any([os.wait()[1] for _ in range(4)]))
"""
    ended = run_python(code, tmp_path, str(root))
    assert (ended.returncode, ended.stderr) == (0, "")
    client = client_of(root)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert Counter(run.info.status for run in runs) == {"FINISHED": 4 * (1 + len(ARMS))}
    assert sorted(path.name for path in root.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("http://127.0.0.1:9", "no MLflow server answers at 'http://127.0.0.1:9'"),
        (
            "http://me:secret@127.0.0.1:9",
            r"no MLflow server answers at 'http://\*\*\*@127.0.0.1:9'",
        ),
        ("nonsense://there", "MLflow at 'nonsense://there' does not work"),
        ("mlruns", "MLflow at 'mlruns' does not work"),
        ("sqlite:///{tmp}/text.db", "file is not a database"),
    ],
)
def test_a_uri_that_does_not_work_is_told_in_one_sentence(tmp_path, uri, problem):
    (tmp_path / "text.db").write_text("not a database " * 100)
    with pytest.raises(FwError, match=problem) as caught:
        MLflow(uri=uri.format(tmp=tmp_path)).open(describe(tmp_path))
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_deleted_experiment_is_told(root):
    first = MLflow().open(describe(root))
    client_of(root).delete_experiment(first.handle["experiment_id"])
    with pytest.raises(FwError, match="experiment 'tiny' is deleted"):
        MLflow().open(describe(root))


def test_the_environment_names_the_store_unless_the_recipe_does(root, tmp_path, monkeypatch):
    shutil.copy(root / "mlflow.db", tmp_path / "named.db")
    uri = sqlite_uri(root / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert MLflow().open(describe(tmp_path)).handle["tracking_uri"] == uri
    named = MLflow(uri=f"sqlite:///{tmp_path}/named.db").open(describe(tmp_path))
    assert named.handle["tracking_uri"] == f"sqlite:///{tmp_path}/named.db"


def test_serving_a_folder_without_a_database_is_refused(tmp_path):
    with pytest.raises(FwError, match=r"no mlflow\.db in"):
        serve(tmp_path, 5000)


def test_serving_on_a_port_that_is_taken_is_refused(root):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(FwError, match="choose another --port"):
            serve(root, taken.getsockname()[1])


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_server_answers_with_the_view_opens_it_and_is_gone_after_ctrl_c(
    root, tmp_path, ending, monkeypatch
):
    browser = tmp_path / "browser"
    browser.write_text('#!/bin/sh\necho "$1" > writing && mv writing page\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    monkeypatch.setenv("DISPLAY", ":0")
    run = MLflow().open(describe(root))
    run.end("finished")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = (
        "import sys; from pathlib import Path; from fw.plugins.trackers.mlflow_server import serve;"
        "sys.exit(serve(Path(sys.argv[1]), int(sys.argv[2]), browse=True))"
    )
    process = start_python(code, tmp_path, str(root), str(port))
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        view = run.hint.split(", then ")[1].replace(":5000/", f":{port}/")
        assert f"tiny: {view}\n" in lines
        while not (tmp_path / "page").exists():
            time.sleep(0.02)
        assert (tmp_path / "page").read_text() == f"{view}\n"
        ask = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/2.0/mlflow/runs/search",
            json.dumps({"experiment_ids": [run.handle["experiment_id"]]}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(ask, timeout=60) as answer:
            assert len(json.load(answer)["runs"]) == 1 + len(ARMS)
    finally:
        process.send_signal(ending)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)


def run_python(code: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    process = start_python(code, folder, *words)
    out, errors = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


def start_python(code: str, folder: Path, *words: str) -> subprocess.Popen[str]:
    """A Python of its own that can import `describe` of this file from `tests_describe`."""
    shutil.copy(__file__, folder / "tests_describe.py")
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", code, *words]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_mlflow_takes_the_names_of_everything_that_the_shipped_recipes_log(root: Path) -> None:
    """Titles of stages have commas; a name that MLflow refuses ends its log of the run."""
    run = MLflow(experiment="names").open(describe(root))
    known: dict[str, Stage] = {}
    for path in (
        Path(str(entry)) for entry in files("fw.recipes").iterdir() if entry.name.endswith(".yaml")
    ):
        known |= plan(load(path)).stages
    assert any("," in stage.title for stage in known.values())
    keys = [named(stage, {"step": 0, "value": 1.0}) for stage in known.values()]
    assert len({tuple(key) for key in keys}) == len(known)
    run.series(
        None,
        [
            {
                "step": 0,
                **{name: value for key in keys for name, value in key.items() if name != "step"},
            }
        ],
    )
    run.end("finished")
    client = client_of(root)
    experiment = client.get_experiment_by_name("names")
    assert experiment is not None
    logged = {
        name
        for each in client.search_runs([experiment.experiment_id])
        for name in each.data.metrics
    }
    assert len(logged & {name for key in keys for name in key}) == len(known)


def test_whether_the_machine_is_watched_is_read_without_mlflow(monkeypatch):
    switch = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
    for word, on in (("true", True), ("1", True), ("False", False), ("0", False)):
        monkeypatch.setenv(switch, word)
        assert MLflow().watching is on
    monkeypatch.setenv(switch, "yes")
    with pytest.raises(FwError, match=f"{switch}=yes: it is true or false"):
        assert MLflow().watching
    monkeypatch.delenv(switch)
    code = (
        "import sys; from fw.plugins.trackers.mlflow import MLflow; "
        "sys.exit(MLflow().watching or 'mlflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
