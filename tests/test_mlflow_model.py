"""A run whose MLflow server is killed in the middle is logged whole by `fw sync`, and its arms are
models that draw the same images where there is neither run nor store."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from rich.console import Console
from sites import Answer, fw
from toys import Untracked

from fw.core.errors import FwError
from fw.core.plan.assembly import plan
from fw.core.run.finished import FinishedRun
from fw.core.run.models import Models
from fw.core.run.package import Packed, pack
from fw.core.stages.sample import Sample
from fw.plugins.trackers.mlflow_server import server, stop_group, wait_until_healthy

RECIPE = """\
fw: 1
name: digits
dataset:   digits
encoder:   pixels
annotator: {name: kmeans, clusters: 4, nredo: 1}
model:     {name: unet, channels: [8, 16], groups: 4}
process:   ddpm
train:     {steps: 20, batch: 32, warmup: 1}
sampler:   {name: dpmpp, steps: 2}
samples:   {count: 12, seeds: 3}
metrics:   [{name: fd, space: {name: pca, dims: 2}}]
baseline:  unconditional
arms:
  unconditional: {annotator: null}
  uniform_1.5:   {prior: uniform, guidance: {name: self_guidance, scale: 1.5}}
  auto_1.5:      {guidance: {name: autoguidance, scale: 1.5, trained: 0.5}}
"""
ARMS = ("unconditional", "uniform_1.5", "auto_1.5")


class Logged(NamedTuple):
    """What became of a run whose server was killed, and what `fw sync` said when it was back."""

    uri: str
    run: FinishedRun
    ran: Answer
    lacking: Answer
    synced: Answer
    again: Answer


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    folder = tmp_path_factory.mktemp("killed")
    recipe = folder / "digits.yaml"
    recipe.write_text(RECIPE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri, out = f"http://127.0.0.1:{port}", folder / "runs"
    words = ("--set", f"tracker={{name: mlflow, uri: '{uri}'}}", "--out", out, "--jobs", "1")
    with ExitStack() as stack:
        first = stack.enter_context(started(folder, port))
        killer = threading.Thread(target=kill, args=(first, out / "store"), daemon=True)
        killer.start()
        ran = fw("run", recipe, *words, "--device", "cpu")
        killer.join(60)
        lacking = fw("sync", "--out", out)
        stack.enter_context(started(folder, port))
        synced, again = fw("sync", "--out", out), fw("sync", "--out", out)
        yield Logged(uri, FinishedRun(out / "digits" / "latest"), ran, lacking, synced, again)


@contextmanager
def started(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow's own server, on a database in the folder."""
    with (
        (folder / "server.log").open("w+b") as output,
        server(folder / "mlflow.db", "127.0.0.1", port, output) as process,
    ):
        wait_until_healthy(process, f"http://127.0.0.1:{port}", output)
        yield process


def kill(process: subprocess.Popen[bytes], store: Path) -> None:
    """End the server as soon as a training is in the store."""
    while not list(store.glob("train-*/manifest.json")):
        time.sleep(0.02)
    stop_group(process, patience=0.1)


def samples(run: FinishedRun, arm: str) -> torch.Tensor:
    """The images of the first sampling seed, as the run scored them."""
    stage = run.arm(arm).sample
    assert isinstance(stage, Sample)
    return stage.load(run.store.path(stage.id))[0]


def test_the_run_does_not_wait_for_its_server_and_says_how_it_is_logged_whole(
    logged: Logged,
) -> None:
    assert logged.ran.code == 0, logged.ran.err
    assert f"`fw sync {logged.run.folder.resolve()}` logs it" in logged.ran.err
    arms = logged.run.results()["arms"]
    assert {arm["status"] for arm in arms.values()} == {"finished"}
    assert logged.lacking.code == 1
    assert "no MLflow server answers" in logged.lacking.err
    assert logged.synced.out.endswith(": logged what was missing\n"), logged.synced.err
    assert logged.again.out.endswith(": nothing was missing\n")


def test_sync_logs_everything_and_nothing_twice(logged: Logged) -> None:
    client = MlflowClient(logged.uri)
    handle = logged.run.record()["mlflow"]
    found = client.search_runs([handle["experiment_id"]])
    assert Counter(run.info.status for run in found) == {"FINISHED": 4}
    whole = {run.data.tags["fw.arm"]: run for run in found if "fw.arm" in run.data.tags}
    for name, arm in logged.run.results()["arms"].items():
        data = whole[name].data
        assert data.metrics["eval/fd_pca"] == arm["metrics"]["fd_pca"]["mean"]
        history = client.get_metric_history(whole[name].info.run_id, "train/loss")
        log = (logged.run.store.path(arm["train_key"]) / "log.jsonl").read_text()
        steps = [json.loads(line)["step"] for line in log.splitlines()]
        assert sorted(point.step for point in history) == steps
        files = {file.path for file in client.list_artifacts(whole[name].info.run_id)}
        assert "grid.png" in files
    models = client.search_logged_models([handle["experiment_id"]])
    assert Counter(model.tags["fw.arm"] for model in models) == dict.fromkeys(ARMS, 1)


def test_an_arm_is_loaded_in_a_fresh_process_and_draws_the_runs_own_images(
    logged: Logged, tmp_path: Path
) -> None:
    run, wanted = logged.run, samples(logged.run, "uniform_1.5")
    names = [fw("register", run.path, "--arm", "uniform_1.5", "--name", "mine") for _ in range(2)]
    assert [name.out for name in names] == ["models:/mine/1\n"] * 2, names[0].err
    away = run.root.rename(tmp_path / "away")  # the model needs neither the run nor the store
    code = """
import sys
import mlflow
import numpy as np

model = mlflow.pyfunc.load_model("models:/mine/1")
np.save(sys.argv[1], model.predict({"count": 12, "seed": 0, "condition": None}))
one = model.predict({"count": 3, "seed": 0, "condition": 2})
print(one.shape, one.dtype, model.metadata.signature.inputs.input_names())
"""
    try:
        ended = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "images.npy"],
            cwd=tmp_path,
            env={**os.environ, "MLFLOW_TRACKING_URI": logged.uri},
            capture_output=True,
            text=True,
            timeout=300,
        )
    finally:
        away.rename(run.root)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "(3, 1, 8, 8) uint8 ['count', 'seed', 'condition']\n"
    assert np.array_equal(np.load(tmp_path / "images.npy"), wanted.numpy())


def test_what_cannot_be_registered_is_refused(logged: Logged) -> None:
    nobody = fw("register", logged.run.path, "--arm", "nobody", "--name", "mine")
    assert (nobody.code, "no such arm" in nobody.err) == (2, True), nobody
    name = fw("register", logged.run.path, "--arm", "auto_1.5", "--name", "a/b")
    assert (name.code, "--name a/b" in name.err) == (2, True), name


@pytest.mark.parametrize("arm", ARMS)
def test_a_packed_arm_draws_the_same_images_with_its_sibling_and_its_prior(
    logged: Logged, arm: str, tmp_path: Path
) -> None:
    run, folder = logged.run, tmp_path / "arm"
    recipe = run.recipe()
    planned = plan(recipe)
    pack(recipe, arm, planned.arms[arm], run.store, run.folder, folder, {"eval/fd_pca": 1.0})
    moved = folder.rename(tmp_path / "elsewhere")
    packed = Packed.read(moved)
    assert torch.equal(packed.draw(12, device="cpu"), samples(run, arm))
    card = (moved / "README.md").read_text()
    assert all(word in card for word in (arm, "eval/fd", "load_model"))
    if arm == "unconditional":
        with pytest.raises(FwError, match="no conditions"):
            packed.draw(1, condition=0, device="cpu")
    else:
        with pytest.raises(FwError, match="4 classes"):
            packed.draw(1, condition=4, device="cpu")
        drawn = [packed.draw(2, condition=each, device="cpu") for each in (0, 3)]
        assert not torch.equal(*drawn)


def test_a_folder_that_is_no_packed_arm_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "arm.json").write_text(json.dumps({"recipe": "digits"}))
    with pytest.raises(FwError, match="cannot be read as an arm of fw") as caught:
        Packed.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_damaged_model_is_not_handed_over(logged: Logged) -> None:
    recipe = logged.run.recipe()
    said = Console(file=io.StringIO())
    models = Models(logged.run.store, lambda: (recipe, plan(recipe)), logged.run.folder, said)
    weights = models.weights("auto_1.5")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"!")
    try:
        models.give("auto_1.5", Untracked(), {})
    finally:
        weights.write_bytes(whole)
    assert isinstance(said.file, io.StringIO)
    assert "the model of arm auto_1.5 is not logged" in said.file.getvalue()
