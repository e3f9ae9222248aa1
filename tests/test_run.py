"""`fw run` from end to end, as users start it: real processes, real MLflow on sqlite, real
crashes."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from operator import methodcaller
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import ViewType
from rich.console import Console
from safetensors.torch import load_file

from fw.core.files import unfinished
from fw.core.files.layout import MANIFEST
from fw.core.report.terminal import BETWEEN, show
from fw.core.report.terminal import parts as parts_of_a_table
from fw.core.store.store import Store

TINY = Path(__file__).parent / "tiny.yaml"


def fw(*words: str | Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fw.core", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def ran(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The tiny recipe run into a folder, on the CPU."""
    return fw("run", TINY, "--out", out, "--device", "cpu", *words)


def start(*words: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fw.core", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def latest(out: Path) -> dict:
    return json.loads((out / "tiny" / "latest" / "run.json").read_text())


def mlflow_runs(out: Path) -> list:
    client = MlflowClient(f"sqlite:///{out}/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    return client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)


def weights(out: Path) -> dict[str, bytes]:
    """The bytes of all trained weights, by stage."""
    return {
        file.parent.name: file.read_bytes()
        for file in sorted((out / "store").glob("train-*/model.safetensors"))
    }


def samples(out: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(out)): file.read_bytes()
        for file in sorted((out / "store").glob("sample-*/samples-*"))
    }


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One complete run in two workers; the tests that use it leave it complete."""
    out = tmp_path_factory.mktemp("finished")
    return out, fw("run", TINY, "--out", out, "--jobs", "2", "--device", "cpu")


def test_a_run_ends_with_a_table_and_a_run_file(finished):
    out, done = finished
    assert done.returncode == 0, done.stderr
    result = latest(out)
    assert list(result["arms"]) == ["unconditional", "self_1.0", "self_1.5"]
    for name, arm in result["arms"].items():
        assert arm["status"] == "finished"
        assert name in done.stdout
        score = arm["metrics"]["fd_pca"]
        assert len(score["values"]) == 3
        assert score["mean"] == pytest.approx(sum(score["values"]) / 3)
        assert score["std"] > 0
        assert score["floor"] < score["mean"]
    assert [arm["nfe"] for arm in result["arms"].values()] == [3, 3, 6]
    assert result["arms"]["self_1.0"]["train_key"] == result["arms"]["self_1.5"]["train_key"]
    assert result["mlflow"]["parent_run_id"]
    assert "fd_pca" in (out / "tiny/latest/report.md").read_text()
    assert (out / "tiny/latest/arms.png").stat().st_size > 5000


def test_mlflow_holds_one_parent_and_one_finished_child_per_arm_with_identical_keys(finished):
    out, _ = finished
    runs = mlflow_runs(out)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run not in parents]
    assert len(parents) == 1
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parents[0].info.run_id}
    assert sorted(run.info.run_name for run in children) == [
        "self_1.0",
        "self_1.5",
        "unconditional",
    ]
    assert {run.info.status for run in runs} == {"FINISHED"}
    keys = [{key for key in run.data.metrics if "verdict" not in key} for run in children]
    assert keys[0] == keys[1] == keys[2]  # the baseline is compared with nothing
    assert {"eval/fd_pca", "train/loss", "cost/nfe"} <= set(children[0].data.metrics)


def test_running_again_does_no_work_twice_and_logs_nothing_twice(finished):
    out, _ = finished
    before = {
        path: path.stat().st_mtime_ns
        for path in (out / "store").rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }
    client = MlflowClient(f"sqlite:///{out}/mlflow.db")
    histories = {
        run.info.run_id: len(client.get_metric_history(run.info.run_id, "train/loss"))
        for run in mlflow_runs(out)
    }
    again = fw("run", TINY, "--out", out, "--device", "cpu")
    assert again.returncode == 0, again.stderr
    assert "start" not in again.stderr
    after = {
        path: path.stat().st_mtime_ns
        for path in (out / "store").rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }
    assert after == before
    assert len(mlflow_runs(out)) == 4
    assert {
        run: len(client.get_metric_history(run, "train/loss")) for run in histories
    } == histories
    assert {run.info.status for run in mlflow_runs(out)} == {"FINISHED"}


def test_one_job_in_this_process_gives_the_same_bits_as_two_workers(finished, tmp_path):
    out, _ = finished
    alone = fw(
        "run", TINY, "--out", tmp_path, "--jobs", "1", "--device", "cpu", "--set", "tracker=null"
    )
    assert alone.returncode == 0, alone.stderr
    assert weights(tmp_path) == weights(out)
    assert samples(tmp_path) == samples(out)


def test_a_corrupted_artifact_is_detected_said_and_done_again(finished):
    out, _ = finished
    before = weights(out)
    victim = next((out / "store").glob("train-*/model.safetensors"))
    data = bytearray(victim.read_bytes())
    data[-3] ^= 1
    victim.write_bytes(data)
    for product in (out / "store").glob("sample-*"):  # so that it is read
        shutil.rmtree(product)
    again = fw("run", TINY, "--out", out, "--device", "cpu")
    assert again.returncode == 0
    assert "checksum of model.safetensors is wrong" in again.stderr
    assert weights(out) == before


def test_compare_prints_the_same_table_from_disk(finished):
    out, done = finished
    shown = fw("compare", out / "tiny" / "latest")
    assert shown.returncode == 0
    assert scores_in(shown.stdout) == scores_in(done.stdout)


def scores_in(table: str) -> list[list[str]]:
    """The rows of arms without their last column, the seconds, which differ where a stage was
    done again."""
    return [
        [cell.strip() for cell in line.split("│")[:-2]]
        for line in table.splitlines()
        if "±" in line
    ]


def test_sample_draws_the_images_that_the_report_scored(finished, tmp_path):
    from PIL import Image

    out, _ = finished
    grid = tmp_path / "grid.png"
    drawn = fw(
        "sample",
        out / "tiny/latest",
        "--arm",
        "self_1.5",
        "-n",
        "40",
        "-o",
        grid,
        "--device",
        "cpu",
    )
    assert drawn.returncode == 0, drawn.stderr
    stored = Image.open(out / "tiny/latest/samples-self_1.5.png")
    assert Image.open(grid).tobytes() == stored.tobytes()


def test_a_training_killed_in_the_middle_resumes_to_the_same_bits(finished, tmp_path):
    out, _ = finished
    words = (
        "run",
        TINY,
        "--out",
        tmp_path,
        "--jobs",
        "1",
        "--device",
        "cpu",
        "--arm",
        "unconditional",
    )
    process = start(*words, "--checkpoint-seconds", "0")
    wait_for_step(tmp_path, 20)
    process.kill()
    process.wait()
    assert not list((tmp_path / "store").glob("train-*/model.safetensors"))
    again = fw(*words)
    assert again.returncode == 0, again.stderr
    expected = weights(out)
    assert weights(tmp_path) == {stage: expected[stage] for stage in weights(tmp_path)}
    statuses = {run.info.run_name: run.info.status for run in mlflow_runs(tmp_path)}
    assert set(statuses.values()) == {"FINISHED"}
    assert len(statuses) == 2


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_keeps_what_is_finished_and_ends_the_mlflow_run(tmp_path, jobs):
    words = (
        "run",
        TINY,
        "--out",
        tmp_path,
        "--jobs",
        jobs,
        "--device",
        "cpu",
        "--set",
        "train.steps=20000",
    )
    process = start(*words, "--checkpoint-seconds", "0")
    wait_for_step(tmp_path, 5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command continues" in said
    assert "Traceback" not in said
    assert {run.info.status for run in mlflow_runs(tmp_path)} == {"KILLED"}
    assert list((tmp_path / "store").glob("train-*.partial/train.checkpoint"))


def wait_for_step(out: Path, step: int) -> None:
    """Until a training's checkpoint has reached the step."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for file in (out / "store").glob("train-*.partial/train.checkpoint"):
            try:
                if torch.load(file, weights_only=True)["step"] >= step:
                    return
            except (OSError, EOFError, RuntimeError):
                continue
        time.sleep(0.05)
    raise AssertionError(f"no training reached step {step} in time")


BAD_INPUT = {
    "an unknown key": (["--set", "train.stepz=3"], "unknown key; did you mean 'steps'?"),
    "a wrong type": (["--set", "train.steps=many"], "train.steps: input should be a valid integer"),
    "an unknown component": (
        ["--set", "annotator=kmean"],
        "no annotator named 'kmean'; did you mean 'kmeans'?",
    ),
    "an unknown arm": (["--arm", "self_9"], "no such arm in recipe 'tiny'"),
    "labels under self-guidance": (
        ["--set", "annotator=labels"],
        "conditions that were made without labels",
    ),
    "a missing data folder": (
        ["--set", "dataset={name: cifar10, root: nowhere}"],
        "cifar-10-batches-py",
    ),
    "missing Inception weights": (
        ["--set", "metrics=[fid]"],
        "weights-inception-2015-12-05-6726825d.pth",
    ),
    "no such device": (["--device", "gpu"], "no such device; use auto, cpu, cuda"),
    "an impossible number of levels": (
        ["--set", "model={name: unet, channels: [16, 16, 16, 16, 16]}"],
        "sides are multiples of 16",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_clear_message_and_exit_code_2(case, tmp_path, monkeypatch):
    words, message = BAD_INPUT[case]
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    done = fw("run", TINY, "--out", tmp_path / "runs", "--jobs", "1", *words)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 2


def test_an_output_folder_that_cannot_be_written_is_said_with_exit_code_2(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    done = fw("run", TINY, "--out", tmp_path / "file" / "runs", "--device", "cpu")
    assert done.returncode == 2
    assert "choose another path" in done.stderr


def test_a_stage_that_fails_ends_with_1_and_keeps_the_rest(tmp_path):
    done = ran(tmp_path, "--jobs", "1", "--set", "arms.broken={train: {lr: 1e30, steps: 60}}")
    assert done.returncode == 1
    assert "lower the learning rate" in done.stderr
    result = latest(tmp_path)
    statuses = {name: arm["status"] for name, arm in result["arms"].items()}
    assert statuses == {
        "unconditional": "finished",
        "self_1.0": "finished",
        "self_1.5": "finished",
        "broken": "failed",
    }
    ended = {
        run.info.run_name: run.info.status
        for run in mlflow_runs(tmp_path)
        if "mlflow.parentRunId" in run.data.tags
    }
    assert ended == {
        "unconditional": "FINISHED",
        "self_1.0": "FINISHED",
        "self_1.5": "FINISHED",
        "broken": "FAILED",
    }


def test_a_dry_run_shows_the_plan_and_writes_nothing(tmp_path):
    done = fw("run", TINY, "--out", tmp_path / "runs", "--dry-run")
    assert done.returncode == 0
    assert done.stdout.count("to do") == 15
    assert not (tmp_path / "runs").exists()


def test_images_do_not_depend_on_how_many_there_are(finished, tmp_path):
    out, _ = finished
    shutil.copytree(out / "store", tmp_path / "store")
    fewer = ran(tmp_path, "--arm", "self_1.5", "--set", "samples.count=20")
    assert fewer.returncode == 0, fewer.stderr
    few = images_of(tmp_path, "self_1.5")
    assert torch.equal(few, images_of(out, "self_1.5")[:20])


def test_guidance_that_is_off_gives_the_same_bits_from_the_same_noise(finished, tmp_path):
    out, _ = finished
    shutil.copytree(out / "store", tmp_path / "store")
    off = "arms.off={guidance: {name: self_guidance, scale: 1.0}}"
    done = ran(tmp_path, "--arm", "off", "--arm", "self_1.0", "--set", off)
    assert done.returncode == 0, done.stderr
    arms = latest(tmp_path)["arms"]
    assert arms["off"]["sample_key"] != arms["self_1.0"]["sample_key"]
    assert torch.equal(images_of(tmp_path, "off"), images_of(tmp_path, "self_1.0"))
    assert not torch.equal(images_of(tmp_path, "off"), images_of(out, "self_1.5"))


def images_of(out: Path, arm: str) -> torch.Tensor:
    """The images of an arm's first sampling seed."""
    return load_file(
        next((out / "store" / latest(out)["arms"][arm]["sample_key"]).glob("samples-000-*"))
    )["images"]


def test_sampling_that_was_cut_off_continues_with_the_images_that_it_lacks(finished, tmp_path):
    out, _ = finished
    key = latest(out)["arms"]["self_1.5"]["sample_key"]
    shutil.copytree(out / "store", tmp_path / "store")
    store = Store(tmp_path / "store")
    whole = (tmp_path / "store" / key).rename(tmp_path / "whole")
    partial = store.begin(key, json.loads((whole / MANIFEST).read_text())["inputs"])
    for name in ("info.json", "samples-000-0000000.safetensors", "samples-001-0000000.safetensors"):
        unfinished.keep(partial / name, methodcaller("write_bytes", (whole / name).read_bytes()))
    kept = (partial / "samples-000-0000000.safetensors").stat().st_mtime_ns
    again = ran(tmp_path, "--arm", "self_1.5", "--set", "tracker=null")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "store" / key / "samples-000-0000000.safetensors").stat().st_mtime_ns == kept
    for file in (out / "store" / key).glob("samples-*"):
        assert (tmp_path / "store" / key / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arm", "self_9"], "no such arm"),
        (["--arm", "self_1.5", "--device", "gpu"], "no such device"),
        (["--arm", "self_1.5", "-o", "grid.jpeg"], "name a .png file"),
        (["--arm", "self_1.5", "-o", "nowhere/grid.png"], "in a folder that exists"),
    ],
)
def test_sample_refuses_bad_input_in_one_sentence(finished, words, message):
    out, _ = finished
    done = fw("sample", out / "tiny/latest", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_one_arm_at_a_time_adds_up_to_the_whole_report(finished, tmp_path):
    out, _ = finished
    for arm in ("unconditional", "self_1.0"):
        done = fw("run", TINY, "--out", tmp_path, "--arm", arm, "--device", "cpu", "--jobs", "1")
        assert done.returncode == 0, done.stderr
    whole, parts = latest(out)["arms"], latest(tmp_path)["arms"]
    assert {name: arm["status"] for name, arm in parts.items()} == {
        "unconditional": "finished",
        "self_1.0": "finished",
        "self_1.5": "pending",
    }
    assert parts["unconditional"]["metrics"] == whole["unconditional"]["metrics"]
    assert parts["self_1.0"]["metrics"] == whole["self_1.0"]["metrics"]
    assert {run.info.run_name for run in mlflow_runs(tmp_path)} >= {"unconditional", "self_1.0"}


@given(
    table=st.integers(2, 9).flatmap(
        lambda columns: st.lists(
            st.lists(st.text("ab±", max_size=9), min_size=columns, max_size=columns),
            min_size=1,
            max_size=4,
        )
    ),
    width=st.integers(1, 60),
)
def test_a_wide_table_comes_in_parts_that_fit_and_leave_nothing_out(table, width):
    found = list(parts_of_a_table(table, width))
    assert [[cell for part in found for cell in part[row][1:]] for row in range(len(table))] == [
        r[1:] for r in table
    ]
    for part in found:
        assert [row[0] for row in part] == [row[0] for row in table]
        needed = 1 + sum(BETWEEN + max(map(len, column)) for column in zip(*part, strict=True))
        assert needed <= width or len(part[0]) == 2


def test_a_table_that_fits_is_printed_once_and_no_cell_is_cut():
    printed_to = io.StringIO()
    console = Console(width=40, file=printed_to)
    result = {
        "recipe": "r",
        "seed": 0,
        "baseline": "base",
        "headline": "fd",
        "better": {f"fd_{n}": "lower" for n in range(6)},
        "arms": {
            "base": {
                "status": "finished",
                "nfe": 10,
                "seconds": 1.0,
                "real_images": {"held_out": 5},
                "metrics": {
                    f"fd_{n}": {"mean": 100.0 + n, "std": 0.5, "floor": 0.1} for n in range(6)
                },
            }
        },
    }
    show(result, console)
    printed = printed_to.getvalue()
    assert all(f"{100 + n}.000 ± 0.500" in printed for n in range(6))
    assert printed.count("fd_0") == 1
