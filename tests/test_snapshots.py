"""Snapshots of a training: they change no bit of its end, outlive crashes, and are sampled, scored
and averaged afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import toys
import yaml
from made import trained as read
from mlflow import MlflowClient
from pydantic import ValidationError
from safetensors.torch import load_file
from sites import Answer, fw

from fw.core.files.weights import supervision_in
from fw.core.job import Job
from fw.core.learning.loop import Step
from fw.core.learning.parts.part import Part
from fw.core.learning.parts.snapshots import Snapshots
from fw.core.learning.train import train
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.checks import faults, warnings
from fw.core.recipe.loading import load, validate
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import parse
from fw.core.settings import Samples, Train
from fw.core.stages.average import AverageWeights
from fw.core.store.store import Store
from fw.plugins.encoders.diffusion import Diffusion
from fw.plugins.guidance.autoguidance import AutoGuidance
from fw.registry import Provider, installed

STEPS = 12
KEPT = Train(steps=STEPS, batch=4, warmup=1, snapshots=4, averages=(0.05, 0.1))
FILES = [
    *(f"average-{width}-{step}" for width in ("0.05", "0.1") for step in (12, 3, 6, 9)),
    *(f"snapshot-{step}" for step in (3, 6, 9)),
]


class Cut(Exception):
    """Stands for a crash: nothing runs after it."""


class CutAt(Part):
    def __init__(self, step: int, how: Any):
        self.step, self.how = step, how

    def follow(self, decay: float, step: Step) -> None:
        if step.number == self.step:
            self.how()


def crash() -> None:
    raise Cut


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def trained(folder: Path, settings: Train = KEPT, cut: Part | None = None) -> dict[str, bytes]:
    """Train the toy in a folder that outlives crashes; what is in its files."""
    folder.mkdir(exist_ok=True)
    job = Job(folder, seed=3, checkpoint_seconds=0)
    parts = [Snapshots(settings, {"by": "test"}), *([cut] if cut else [])]
    data = toys.Dots().load("train").without_labels()
    network = train(toys.Linear(), toys.Unit(), data, None, settings, job, parts)
    kept = {file.stem: file.read_bytes() for file in sorted(folder.glob("*.safetensors"))}
    return {
        "end": b"".join(each.numpy().tobytes() for each in network.state_dict().values()),
        **kept,
    }


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return trained(tmp_path_factory.mktemp("straight"))


def test_a_training_ends_with_the_same_bits_with_snapshots_and_without(
    straight: dict[str, bytes], tmp_path: Path
) -> None:
    assert sorted(straight) == sorted(["end", *FILES])
    assert trained(tmp_path, KEPT.without_snapshots) == {"end": straight["end"]}


def test_a_snapshot_is_the_end_of_a_training_that_ended_there(tmp_path: Path) -> None:
    settings = KEPT.model_copy(update={"schedule": "constant"})
    trained(tmp_path / "long", settings)
    shorter = settings.model_copy(update={"steps": 6, "snapshots": 2})
    trained(tmp_path / "short", shorter)
    for width in ("0.05", "0.1"):
        name = f"average-{width}-6.safetensors"
        assert (tmp_path / "long" / name).read_bytes() == (tmp_path / "short" / name).read_bytes()


@pytest.mark.parametrize("step", [1, 5, 6, 10])
def test_wherever_it_was_cut_off_the_snapshots_are_the_same(
    step: int, straight: dict[str, bytes], tmp_path: Path
) -> None:
    with pytest.raises(Cut):
        trained(tmp_path, cut=CutAt(step, crash))
    assert trained(tmp_path) == straight


def test_a_kill_leaves_snapshots_whole_and_the_training_goes_on_from_its_checkpoint(
    straight: dict[str, bytes], tmp_path: Path
) -> None:
    code = (
        "import pathlib, test_snapshots as t\n"
        f"t.trained(pathlib.Path({str(tmp_path)!r}), cut=t.CutAt(7, t.killed))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=False)
    assert done.returncode == -signal.SIGKILL
    assert Job(tmp_path).reached() == 7
    before = (tmp_path / "snapshot-6.safetensors").stat().st_mtime_ns
    assert trained(tmp_path) == straight
    assert (tmp_path / "snapshot-6.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("harm", ["damaged", "gone"])
def test_a_training_whose_snapshot_is_lost_begins_again(
    harm: str, straight: dict[str, bytes], tmp_path: Path
) -> None:
    with pytest.raises(Cut):
        trained(tmp_path, cut=CutAt(7, crash))
    lost = tmp_path / "average-0.1-3.safetensors"
    if harm == "damaged":
        lost.write_bytes(lost.read_bytes()[:-1] + b"\xff")
    else:
        lost.unlink()
    assert trained(tmp_path) == straight


def test_snapshots_are_evenly_spaced_and_the_last_is_the_end() -> None:
    assert Train(steps=1000, snapshots=5).snapshot_steps == [200, 400, 600, 800, 1000]
    assert Train(steps=10, snapshots=3).snapshot_steps == [3, 6, 10]
    assert Train(steps=2, snapshots=2).snapshot_steps == [1, 2]
    assert Train().snapshot_steps == []


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"steps": 4, "snapshots": 5}, "steps"),
        ({"averages": [0.1]}, "snapshots"),
        ({"snapshots": 4, "averages": [0.1, 0.1]}, "twice"),
        ({"snapshots": 4, "averages": [0.3]}, "0.28"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_the_remedy_is_said(
    fields: dict[str, Any], word: str
) -> None:
    with pytest.raises(ValidationError, match=word):
        Train.model_validate(fields)


def test_an_encoder_is_read_at_its_end_and_keeps_no_snapshots() -> None:
    context = {"registry": installed()}
    with pytest.raises(ValidationError, match=r"train\.snapshots"):
        Diffusion.model_validate({"train": {"snapshots": 2}}, context=context)


def test_one_image_of_a_snapshot_is_too_few() -> None:
    with pytest.raises(ValidationError, match="2 or more"):
        Samples(snapshots=1)


# Plans


def recipe(
    train: str = "snapshots: 4, averages: [0.05, 0.1]", arms: str = "", **more: Any
) -> Recipe:
    registry = toys.registry()
    registry.add(Provider("autoguidance"), [AutoGuidance])
    text = toys.RECIPE.replace("train: {", f"train: {{{train}, " if train else "train: {")
    data = yaml.safe_load(text.rstrip() + arms)
    return validate(parse(yaml.safe_dump({**data, **more}), "r.yaml"), registry)


def stages(found: Plan, kind: str) -> set[str]:
    return {id_ for id_, stage in found.stages.items() if stage.kind == kind}


def test_without_snapshots_no_key_changes_and_nothing_is_added() -> None:
    plain = plan(recipe(train=""))
    assert plain.stages.keys() == plan(recipe(train="snapshots: 0, averages: []")).stages.keys()
    assert (
        plain.stages.keys()
        == plan(recipe(train="", samples={"count": 6, "seeds": 3, "snapshots": 4})).stages.keys()
    )
    assert not stages(plain, "average")
    assert all(not arm.snapshots for arm in plain.arms.values())


def test_snapshots_are_in_the_key_of_the_training_that_keeps_them() -> None:
    keys = [plan(recipe(train=kept)).arms["plain"].train for kept in ("", "snapshots: 4")]
    assert len(set(keys)) == 2


def test_each_snapshot_is_drawn_and_scored_at_a_small_n_and_the_arm_is_done_without() -> None:
    found = plan(recipe(train="snapshots: 4"))
    arm = found.arms["self_1.5"]
    assert [each.step for each in arm.snapshots] == [1, 2, 3, 4]
    assert [each.drawn.samples.count for each in arm.snapshots] == [6] * 4  # count is less than 500
    assert {each.drawn.samples.seeds for each in arm.snapshots} == {1}
    assert [each.drawn.step for each in arm.snapshots] == [1, 2, 3, None]
    assert len({each.drawn.title for each in arm.snapshots} | {arm.drawn.title}) == 5
    apart = {each.drawn.id for each in arm.snapshots} | {
        stage for each in arm.snapshots for stage in each.evaluate
    }
    assert apart <= found.stages.keys()
    assert not apart & found.needed(arm)


def test_samples_may_leave_the_snapshots_alone() -> None:
    found = plan(recipe(train="snapshots: 4", samples={"count": 6, "snapshots": 0}))
    assert all(not arm.snapshots for arm in found.arms.values())


def test_arms_that_differ_in_the_chosen_length_share_their_training() -> None:
    arms = """
  short: {annotator: null, ema: 0.05}
  long: {annotator: null, ema: 0.1}
  again: {annotator: null, ema: {samples: 0.1, probes: 0.05}}
"""
    found = plan(recipe(arms=arms))
    plain, short, long, again = (found.arms[name] for name in ("plain", "short", "long", "again"))
    assert plain.train == short.train == long.train == again.train
    assert len({plain.sample, short.sample, long.sample}) == 3
    assert long.sample == again.sample
    assert plain.weights == plain.train
    assert found.stages[long.weights].title == "average linear, no conditions, ema 0.1"
    assert {long.weights, long.train} <= found.needed(long)
    [*_, end] = long.snapshots
    assert end.drawn.average is found.stages[long.weights]
    assert [each.drawn.average.step for each in long.snapshots if each.drawn.average] == [
        1,
        2,
        3,
        4,
    ]


def test_a_worse_network_keeps_snapshots_only_where_its_average_is_chosen() -> None:
    mode = "name: autoguidance, scale: 2, trained: 0.5"
    arms = f"""
  auto: {{annotator: null, guidance: {{{mode}}}}}
  wide: {{annotator: null, guidance: {{{mode}, ema_width: 0.1}}}}
  self: {{annotator: null, guidance: {{name: autoguidance, scale: 2, trained: 1, ema_width: 0.1}}}}
"""
    found = plan(recipe(arms=arms))
    auto, wide, itself = (found.arms[name] for name in ("auto", "wide", "self"))
    without = plan(recipe(train="", arms=arms.replace(", ema_width: 0.1", ", ema: 0.5")))
    assert auto.siblings == without.arms["auto"].siblings
    assert wide.siblings != auto.siblings
    assert itself.siblings == [itself.train]
    [average] = wide.averages
    stage = found.stages[average]
    assert isinstance(stage, AverageWeights)
    assert (stage.train.id, stage.width, stage.step) == (wide.siblings[0], 0.1, 2)
    assert average in found.stages[wide.sample].inputs.values()


def test_what_cannot_be_averaged_is_refused_and_what_is_rough_is_warned_of() -> None:
    arms = "\n  long: {annotator: null, ema: 0.25}\n"
    with pytest.raises(Exception, match=r"train\.averages") as refused:
        recipe(train="snapshots: 4", arms=arms)
    assert "arms.long.ema" in str(refused.value)
    rough = [str(each) for each in warnings(recipe(arms=arms))]
    assert any("arms.long.ema: an average of relative width 0.25" in each for each in rough)
    fine = recipe(arms=arms.replace("0.25", "0.1"))
    assert not list(faults(fine))
    assert not any("relative width" in str(each) for each in warnings(fine))


def test_arms_that_keep_other_snapshots_are_on_equal_terms_and_other_lengths_are_not() -> None:
    arms = """
  kept: {annotator: null, train: {steps: 4, batch: 8, warmup: 1}}
  long: {annotator: null, ema: 0.1}
  fair: {ema: 0.1}
  other: {ema: 0.05}
"""
    said = [str(each) for each in warnings(recipe(arms=arms)) if "baseline's" in str(each)]
    assert [text.partition(" differs")[0] for text in said] == ["arms.other: ema"]


# A whole run

RUN = """
fw: 1
name: kept
dataset: digits
encoder: pixels
annotator: {name: kmeans, clusters: 5, nredo: 1}
model: {name: unet, channels: [8, 16], groups: 4}
process: {name: ddpm, prediction: v, schedule: cosine}
train: {steps: 40, batch: 32, lr: 0.01, ema: 0, warmup: 5, snapshots: 2, averages: [0.05, 0.1]}
sampler: {name: dpmpp, steps: 2}
samples: {count: 24, seeds: 2, snapshots: 20}
metrics: [{name: fd, space: {name: pca, dims: 4}}]
probes: [{name: linear, of: model, draws: 1}]
tracker: mlflow
baseline: plain
arms:
  plain: {annotator: null}
  long: {annotator: null, ema: 0.1}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    place = tmp_path_factory.mktemp("kept")
    (place / "kept.yaml").write_text(RUN)
    return place / "runs", fw("run", place / "kept.yaml", "--out", place / "runs", "--jobs", "1")


def result(out: Path) -> dict[str, Any]:
    return json.loads((out / "kept/latest/run.json").read_text())


def test_a_run_reports_curves_and_grids_over_steps(finished: tuple[Path, Answer]) -> None:
    out, done = finished
    assert done.code == 0, done.err
    for name, arm in result(out)["arms"].items():
        assert [each["step"] for each in arm["snapshots"]] == [20, 40]
        for each in arm["snapshots"]:
            assert each["count"] == 20
            assert each["metrics"]["fd_pca"]["values"] == [each["metrics"]["fd_pca"]["mean"]]
        assert (out / f"kept/latest/steps-{name}.png").exists()
    assert (out / "kept/latest/curves.png").exists()
    report = (out / "kept/latest/report.md").read_text()
    assert "## While training" in report
    assert "| arm | 20 | 40 |" in report
    assert "20 samples of one sampling seed" in report


def test_the_tracker_has_the_curves_on_the_arms_runs(finished: tuple[Path, Answer]) -> None:
    out, _ = finished
    client = MlflowClient(f"sqlite:///{out}/mlflow.db")
    known = result(out)
    for name, arm in known["arms"].items():
        history = client.get_metric_history(known["mlflow"]["children"][name], "snapshot/fd_pca")
        assert [(each.step, each.value) for each in history] == [
            (each["step"], each["metrics"]["fd_pca"]["mean"]) for each in arm["snapshots"]
        ]


def test_consumers_read_the_average_that_was_chosen(finished: tuple[Path, Answer]) -> None:
    """Samples of the report and of `fw sample`, probes, and the model that the tracker holds."""
    out, _ = finished
    arms = result(out)["arms"]
    assert arms["plain"]["train_key"] == arms["long"]["train_key"]
    assert arms["plain"]["metrics"] != arms["long"]["metrics"]
    planned = plan(load(out.parent / "kept.yaml")).arms
    store = out / "store"
    probed = {name: read(arm.judged[-1], store).network for name, arm in planned.items()}
    for name, arm in planned.items():
        weights = load_file(store / arm.weights / "model.safetensors")
        assert all((weights[key] == each).all() for key, each in probed[name].state_dict().items())
    training = store / planned["long"].train
    own = load_file(store / planned["long"].weights / "model.safetensors")
    kept = load_file(training / "average-0.1-40.safetensors")
    for name, tensor in kept.items():  # the width was tracked, so it is itself
        assert (own[name] - tensor).abs().max() < 1e-6
    assert own.keys() == load_file(training / "model.safetensors").keys()
    assert supervision_in(store / planned["long"].weights / "model.safetensors").kind == "nothing"
    assert supervision_in(training / "snapshot-20.safetensors").kind == "nothing"

    uploaded = sorted((out / "mlartifacts").rglob("model.safetensors"))
    wanted = {
        (store / planned[name].weights / "model.safetensors").read_bytes() for name in planned
    }
    assert {file.read_bytes() for file in uploaded} == wanted
    assert len(wanted) == 2

    grids = []
    for name in planned:
        grids.append(out / f"{name}.png")
        words = ("--arm", name, "-n", "24", "-o", grids[-1])
        assert fw("sample", out / "kept/latest", *words).code == 0
        assert grids[-1].read_bytes() == (out / f"kept/latest/samples-{name}.png").read_bytes()
    assert grids[0].read_bytes() != grids[1].read_bytes()


def test_heat_maps_are_of_the_average_that_samples_are_drawn_of(
    finished: tuple[Path, Answer],
) -> None:
    out, _ = finished
    maps = []
    for name in ("plain", "long"):
        words = ("--arm", name, "--draws", "1", "--sigmas", "0.1")
        done = fw("heatmap", out / "kept/latest", *words)
        assert done.code == 0, done.err
        maps.append(json.loads((out / f"kept/latest/heatmap-{name}.json").read_text()))
    assert maps[0]["untrained"] == maps[1]["untrained"]
    assert maps[0]["trained"] != maps[1]["trained"]


def test_a_finished_snapshot_is_drawn_as_the_arm_is_at_its_step(
    finished: tuple[Path, Answer],
) -> None:
    """The last one is the arm itself: image i is the same at any count."""
    out, _ = finished
    arm = plan(load(out.parent / "kept.yaml")).arms["long"]
    store = Store(out / "store")
    whole = arm.drawn.load(store.path(arm.sample))[0]
    early, late = (each.drawn.load(store.path(each.drawn.id))[0] for each in arm.snapshots)
    assert (late == whole[:20]).all()
    assert not (early == late).all()
