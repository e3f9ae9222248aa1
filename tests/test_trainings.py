"""What is done with one of several trainings of an arm: sampling, heat maps, registered models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from sites import fw, site, toy_recipe, write

from fw.core.run.finished import FinishedRun
from fw.plugins.trackers.mlflow_uris import sqlite_uri

RECIPE = """\
fw: 1
name: twice
dataset:   digits
encoder:   pixels
annotator: {name: kmeans, clusters: 3, nredo: 1}
model:     {name: unet, channels: [8, 16], groups: 4}
process:   {name: ddpm}
train:     {steps: 10, batch: 16, warmup: 1}
sampler:   {name: dpmpp, steps: 2}
samples:   {count: 12, seeds: 1}
metrics:   [{name: fd, space: {name: pca, dims: 2}}]
tracker:   mlflow
baseline:  self_1.5
repeats:   2
arms:
  self_1.5: {guidance: {name: self_guidance, scale: 1.5}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("twice")
    (folder / "recipe.yaml").write_text(RECIPE)
    out = folder / "runs"
    done = fw("run", folder / "recipe.yaml", "--out", out, "--jobs", "1", "--device", "cpu")
    assert done.code == 0, done.err
    return out / "twice" / "latest"


def test_each_training_is_sampled_by_its_seed_and_the_first_without(
    run: Path, tmp_path: Path
) -> None:
    made = {}
    for word in ("0", "1", ""):
        output = tmp_path / f"grid{word}.png"
        which = ["--training", word] if word else []
        answer = fw("sample", run, "--arm", "self_1.5", *which, "-n", "12", "-o", output)
        assert answer.code == 0, answer.err
        made[word] = output.read_bytes()
    finished = FinishedRun(run)
    for seed in (0, 1):
        stage = finished.arm("self_1.5", seed).sample
        assert made[str(seed)] == (finished.store.path(stage.id) / "grid.png").read_bytes()
    assert made[""] == made["0"] != made["1"]


def test_each_training_is_registered_by_its_seed_and_the_first_without(run: Path) -> None:
    register = ("register", run, "--arm", "self_1.5", "--name", "digits")
    answers = [fw(*register, *which) for which in ([], ["--training", "1"], ["--training", "0"])]
    assert [answer.out.strip() for answer in answers] == [
        "models:/digits/1",
        "models:/digits/2",
        "models:/digits/1",
    ], answers


def test_a_seed_that_nothing_was_trained_from_is_refused(run: Path, tmp_path: Path) -> None:
    about = ("--arm", "self_1.5", "--training", "2")
    for words in (
        ("sample", run, *about, "-o", tmp_path / "grid.png"),
        ("heatmap", run, *about),
        ("register", run, *about, "--name", "digits"),
    ):
        answer = fw(*words)
        assert answer.code == 2
        assert answer.err.strip() == "--training 2: no arm was trained from this seed (known: 0, 1)"


def test_an_arm_shows_the_images_of_its_first_training_on_the_page_of_its_own(run: Path) -> None:
    handle = json.loads((run / "run.json").read_text())["mlflow"]
    client = MlflowClient(sqlite_uri(FinishedRun(run).root / "mlflow.db"))
    arm, first = (
        client.get_run(handle["children"][name]) for name in ("self_1.5", "self_1.5 seed 0")
    )
    for logged in (arm, first):
        assert "grid.png" in [file.path for file in client.list_artifacts(logged.info.run_id)]
        assert "![grid.png]" in logged.data.tags["mlflow.note.content"]
    assert "first training, from seed 0" in (run / "report.md").read_text()
    assert "first training, from seed 0" in (run / "report.html").read_text()


FUSSY = """
    from typing import ClassVar

    from toys import Halves
    from fw.registry import hookimpl

    FW_API = 2


    class Fussy(Halves):
        name: ClassVar[str] = "fussy"

        def annotate(self, data, job):
            if job.seed == 1:
                raise ValueError("not with this seed")
            return super().annotate(data, job)


    @hookimpl
    def fw_components():
        return [Fussy]
"""


def test_trainings_that_finished_are_logged_where_another_of_the_arm_failed(
    tmp_path: Path,
) -> None:
    recipe, plugin = toy_recipe(tmp_path), write(tmp_path / "fussy.py", FUSSY)
    sets = ("annotator={name: fussy, clusters: 2}", "tracker=mlflow", "repeats=3")
    words = [word for each in sets for word in ("--set", each)]
    with site(tmp_path / "site"):
        done = fw("run", recipe, *words, "--plugin", plugin, "--out", tmp_path / "out", "--jobs", 1)
    assert done.code == 1, done.err
    record = json.loads((tmp_path / "out/toy/latest/run.json").read_text())
    client = MlflowClient(sqlite_uri(tmp_path / "out/mlflow.db"))
    logged = {name: client.get_run(id_) for name, id_ in record["mlflow"]["children"].items()}
    ends = {name: run.info.status for name, run in logged.items() if "self_1.5" in name}
    assert ends == {
        "self_1.5": "FAILED",
        "self_1.5 seed 0": "FINISHED",
        "self_1.5 seed 1": "FAILED",
        "self_1.5 seed 2": "FINISHED",
    }
    scored = logged["self_1.5 seed 2"].data.metrics["eval/gap_flat"]
    values = record["arms"]["self_1.5"]["metrics"]["gap_flat"]["trainings"]["2"]
    assert scored == pytest.approx(sum(values) / 3)
    one = next(iter(record["verdict"]["comparisons"]))
    assert (len(one["values"]), one["left_out"]) == (2, 1)


def test_a_heat_map_is_of_its_training_and_leaves_no_run_of_the_tracker_open(run: Path) -> None:
    words = ("heatmap", run, "--arm", "self_1.5", "--sigmas", "0.1", "-n", "40", "--draws", "1")
    first, second = fw(*words), fw(*words, "--training", "1")
    assert (first.code, second.code) == (0, 0), (first.err, second.err)
    assert json.loads((run / "heatmap-self_1.5.json").read_text())["training"] == 0
    assert json.loads((run / "heatmap-self_1.5-1.json").read_text())["training"] == 1
    handle = json.loads((run / "run.json").read_text())["mlflow"]
    client = MlflowClient(sqlite_uri(FinishedRun(run).root / "mlflow.db"))
    logged = client.search_runs([handle["experiment_id"]])
    assert len(logged) == 4
    assert {each.info.status for each in logged} == {"FINISHED"}
