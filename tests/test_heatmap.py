"""`fw heatmap`: what is read of a finished run, what is drawn of it, and what it says where it
cannot be made."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.axes import Axes
from mlflow import MlflowClient
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from fw.core.cli import app, guarded
from fw.core.commands import heatmap
from fw.core.commands.heatmap import Request, best, levels, survey, target, verdict, write
from fw.core.commands.sample import draw
from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.core.diffusion.pixels import to_unit
from fw.core.errors import FwError
from fw.core.execution.options import Options
from fw.core.features.activations import noise_of, split
from fw.core.plan.assembly import plan
from fw.core.randomness import generator
from fw.core.recipe.loading import load
from fw.core.report import figures
from fw.core.run.calls import Files, Opened
from fw.core.run.finished import FinishedRun
from fw.core.run.journal import Journal
from fw.core.run.opening import opened
from fw.core.run.run import run as run_plan
from fw.core.types import Split
from fw.plugins.backbones.unet import UNet
from fw.plugins.datasets.digits import Digits
from fw.plugins.processes.ddpm import DDPM
from fw.plugins.trackers.mlflow import MLflow
from fw.plugins.trackers.mlflow_uris import sqlite_uri

RECIPE = """\
fw: 1
name: mapped
dataset:   digits
encoder:   pixels
annotator: {name: kmeans, clusters: 3, nredo: 1}
model:     {name: unet, channels: [8, 16], groups: 4}
process:   {name: ddpm}
train:     {steps: 30, batch: 32, warmup: 1}
sampler:   {name: dpmpp, steps: 2}
samples:   {count: 20, seeds: 3}
metrics:   [{name: fd, space: {name: pca, dims: 2}}]
baseline:  unconditional
arms:
  unconditional: {annotator: null}
  self_1.5:      {guidance: {name: self_guidance, scale: 1.5}}
"""
QUIET = Console(quiet=True)
SPLITS: tuple[Split, ...] = ("train", "test")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mapped")
    (folder / "recipe.yaml").write_text(RECIPE)
    recipe = load(folder / "recipe.yaml")
    run_plan(recipe, plan(recipe), Options(folder / "runs", device="cpu", jobs=1), [], QUIET)
    return folder / "runs" / "mapped" / "latest"


@pytest.fixture(scope="module")
def answer(run: Path) -> dict[str, Any]:
    return survey(
        FinishedRun(run),
        Request("unconditional", (0.05, 2.0), images=300, draws=1, device="cpu"),
        QUIET,
    )


def test_every_block_is_scored_at_every_noise_level_with_both_controls(
    answer: dict[str, Any],
) -> None:
    assert answer["blocks"] == ["down.0", "down.1", "mid", "up.0", "up.1"]
    assert answer["sigmas"] == [2.0, 0.05]
    assert answer["log_snr"] == pytest.approx([-2 * math.log(2.0), -2 * math.log(0.05)])
    assert answer["images"] == {"fitted": 240, "validation": 60, "held_out": 300}
    for network in ("trained", "untrained"):
        for rows in answer[network].values():
            assert [len(row) for row in rows] == [2] * 5
            assert all(0 <= value <= 1 for row in rows for value in row)
    assert answer["trained"] != answer["untrained"]
    assert answer["pixels"]["held_out"] > 0.8
    json.dumps(answer)


def stored(run: Path) -> dict[str, Tensor]:
    """The weights of the unconditional model."""
    found = [
        load_file(path)
        for path in (run.resolve().parents[1] / "store").glob("train-*/model.safetensors")
    ]
    [unconditional] = [weights for weights in found if "embed.null" not in weights]
    return unconditional


def test_the_trained_network_is_the_one_in_the_store(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[NetworkDenoiser] = []

    def probed(name: str, model: NetworkDenoiser, *_: Any) -> dict[str, list[list[float]]]:
        seen.append(model)
        return {"validation": [[0.0]] * 5, "held_out": [[0.0]] * 5}

    monkeypatch.setattr(heatmap, "probed", probed)
    survey(FinishedRun(run), Request("unconditional", (0.05,), images=40, device="cpu"), QUIET)
    trained, untrained = (model.network.state_dict() for model in seen)
    weights = stored(run)
    assert all(torch.equal(trained[name], weight) for name, weight in weights.items())
    assert any(not torch.equal(untrained[name], weight) for name, weight in weights.items())


def noisy(images: Tensor, sigma: float) -> Tensor:
    return to_unit(images) + sigma * noise_of(images, 1, (1, 8, 8))[0]


def test_a_cell_is_a_probe_of_that_block_at_that_level(run: Path, answer: dict[str, Any]) -> None:
    """By hand, with sklearn alone."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    data = {name: heatmap.subset(Digits().load(name), name, 300) for name in SPLITS}
    network = UNet(channels=(8, 16), groups=4).build((1, 8, 8), None).eval()
    network.load_state_dict(stored(run))
    model, sigma = NetworkDenoiser(network, DDPM()), 2.0
    with torch.no_grad():
        features = {
            name: model.features(noisy(part.images, sigma), torch.full((300,), sigma), ["mid"])[
                "mid"
            ]
            for name, part in data.items()
        }
    x, test = (features[name].mean(dim=(2, 3)).numpy() for name in SPLITS)
    y, known = (heatmap.labels_of(data[name]).numpy() for name in SPLITS)
    fitted, held = (rows.numpy() for rows in split(300, generator(0, "heatmap", "validation")))
    scaler = StandardScaler().fit(x[fitted])
    probe = LogisticRegression(max_iter=300).fit(scaler.transform(x[fitted]), y[fitted])
    cell = {name: rows[2][0] for name, rows in answer["trained"].items()}
    assert cell["held_out"] == pytest.approx(probe.score(scaler.transform(test), known), abs=0.011)
    assert cell["validation"] == pytest.approx(
        probe.score(scaler.transform(x[held]), y[held]), abs=0.034
    )


def test_a_conditional_arm_is_read_without_a_condition(run: Path) -> None:
    found = survey(
        FinishedRun(run), Request("self_1.5", (0.05,), images=60, draws=1, device="cpu"), QUIET
    )
    assert found["arm"] == "self_1.5"
    assert [len(row) for row in found["trained"]["held_out"]] == [1] * 5


def made_up() -> dict[str, Any]:
    return {
        "blocks": ["mid", "up.0"],
        "sigmas": [1.0, 0.1],
        "log_snr": [0.0, 4.6],
        "trained": {"validation": [[0.2, 0.6], [0.6, 0.5]], "held_out": [[0.25, 0.55], [0.5, 0.9]]},
        "untrained": {
            "validation": [[0.1, 0.1], [0.1, 0.1]],
            "held_out": [[0.1, 0.12], [0.13, 0.11]],
        },
        "pixels": {"validation": 0.3, "held_out": 0.35},
    }


def test_the_best_cell_is_chosen_on_the_validation_split_and_of_equals_it_has_less_noise() -> None:
    found = best(made_up())
    assert found == {
        "block": "mid",
        "sigma": 0.1,
        "validation": 0.6,
        "held_out": 0.55,
        "untrained": 0.12,
    }
    told = verdict({**made_up(), "best": found})
    assert told == (
        "best on the validation split: mid at sigma 0.1; held out 55.0%, untrained 12.0%, raw "
        "pixels 35.0%"
    )


def test_the_figure_has_both_maps_in_the_same_colours_on_an_axis_of_log_snr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[Any, Any, Any]] = []
    lines: list[float] = []
    mesh, line = Axes.pcolormesh, Axes.axhline

    def spy_mesh(self: Axes, *args: Any, **kw: Any) -> Any:
        if "vmin" in kw:  # not the colour bar's own
            drawn.append((args[0], args[2], (kw["vmin"], kw["vmax"])))
        return mesh(self, *args, **kw)

    def spy_line(self: Axes, *args: Any, **kw: Any) -> Any:
        lines.append(args[0])
        return line(self, *args, **kw)

    monkeypatch.setattr(Axes, "pcolormesh", spy_mesh)
    monkeypatch.setattr(Axes, "axhline", spy_line)
    paths = write(made_up(), tmp_path / "map.png")
    assert [path.name for path in paths] == ["map.png", "map.json"]
    assert json.loads(paths[1].read_text()) == made_up()
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    trained, untrained = drawn
    assert trained[1] == made_up()["trained"]["held_out"]
    assert untrained[1] == made_up()["untrained"]["held_out"]
    assert trained[2] == untrained[2] == (0.1, 0.9)
    assert trained[0] == pytest.approx([-2.3, 2.3, 6.9])
    assert lines == [0.35]
    assert figures.cell_edges([3.0]) == [2.5, 3.5]


def call(*words: str) -> int:
    try:
        return guarded(lambda: app(list(words), prog_name="fw"))
    except SystemExit as ended:
        return int(ended.code or 0)


def test_the_command_writes_the_picture_and_its_numbers_and_says_the_best(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [
        "heatmap",
        str(run),
        "--arm",
        "unconditional",
        "--sigmas",
        "0.1",
        "-n",
        "60",
        "--draws",
        "1",
    ]
    assert call(*command, "--device", "cpu") == 0
    out, _ = capfd.readouterr()
    assert out.splitlines()[0].endswith("heatmap-unconditional.png")
    assert out.splitlines()[2].startswith("best on the validation split: ")
    assert json.loads((run / "heatmap-unconditional.json").read_text())["sigmas"] == [0.1]
    assert (run / "heatmap-unconditional.png").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--arm", "other"], "--arm other: no such arm"),
        (["--arm", "unconditional", "--sigmas", "a"], "--sigmas a: noise levels above 0"),
        (
            ["--arm", "unconditional", "--sigmas", "1e9"],
            "--sigmas 1e+09: the model was trained at noise levels from",
        ),
        (["--arm", "unconditional", "-o", "map.jpg"], "-o map.jpg: name a .png file"),
    ],
)
def test_what_cannot_be_asked_is_told_in_a_sentence(
    words: list[str], told: str, run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("heatmap", str(run), *words) == 2
    assert told in capfd.readouterr().err


def test_what_is_not_finished_or_no_run_is_told(run: Path, tmp_path: Path) -> None:
    with pytest.raises(FwError, match="not a run folder"):
        target(FinishedRun(tmp_path), Request("unconditional"), None)
    alone = tmp_path / "mapped" / "seed0"
    shutil.copytree(run.resolve(), alone)
    with pytest.raises(FwError, match="is not finished; run the recipe first"):
        survey(FinishedRun(alone), Request("unconditional"), QUIET)


def test_levels_are_numbers_above_zero() -> None:
    assert levels("0.05, 0.5") == (0.05, 0.5)
    for text in ("", "0.1,", "-1", "nan", "inf"):
        with pytest.raises(FwError, match="--sigmas"):
            levels(text)


def tracked_run(run: Path, tmp_path: Path) -> Path:
    """A copy of the run's folder, of a recipe with a tracker."""
    folder = tmp_path / "mapped" / "seed0"
    shutil.copytree(run.resolve(), folder)
    resolved = folder / "recipe.resolved.yaml"
    resolved.write_text(
        resolved.read_text().replace("tracker: null", "tracker: {name: mlflow, uri: null}")
    )
    return folder


def test_the_figure_joins_the_grids_in_mlflows_view_and_arms_end_as_they_had(
    run: Path, tmp_path: Path
) -> None:
    folder = tracked_run(run, tmp_path)
    result = json.loads((folder / "run.json").read_text())
    result["arms"]["unconditional"]["status"] = "failed"
    (folder / "run.json").write_text(json.dumps(result))
    recipe = FinishedRun(folder).recipe()
    about = opened(recipe, plan(recipe), {}, folder).description(folder, None)
    shutil.copy(folder / "samples-self_1.5.png", tmp_path / "grid.png")
    before = MLflow().open(about)
    before.files("self_1.5", [tmp_path / "grid.png"])
    before.end("finished")
    for suffix in (".png", ".json"):
        shutil.copy(tmp_path / "grid.png", tmp_path / f"map{suffix}")
    for _ in range(2):
        heatmap.log(FinishedRun(folder), {"arm": "self_1.5"}, tmp_path / "map.png", QUIET)
    client = MlflowClient(sqlite_uri(tmp_path / "mlflow.db"))
    experiment = client.get_experiment(before.handle["experiment_id"])
    view = json.loads(experiment.tags["mlflow.sharedViewState.fw-seed0"])
    charts = json.loads(view["state"])["compareRunCharts"]
    pictures = [key for chart in charts for key in chart.get("imageKeys", ())]
    assert pictures == ["eval/grid", "eval/map"]
    ended = {arm: client.get_run(id_).info.status for arm, id_ in before.handle["children"].items()}
    assert ended == {"unconditional": "FAILED", "self_1.5": "FINISHED"}
    shown = [file.path for file in client.list_artifacts(before.handle["children"]["self_1.5"])]
    assert {"map.png", "map.json", "grid.png"} <= set(shown)


def test_a_tracker_that_fails_is_a_warning_and_sync_makes_up_for_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tracked_run(run, tmp_path)

    def fails(*_: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr(MLflow, "open", fails)
    heatmap.log(FinishedRun(folder), {"arm": "self_1.5"}, tmp_path / "map.png", Console())
    told = "warning: the tracker did not take the heat map: the tracker raised OSError: no route"
    assert told in capsys.readouterr().out
    opening, files, *ends = Journal(folder).pending()
    assert isinstance(opening, Opened)
    assert files == Files("self_1.5", ["map.png", "map.json"])
    assert len(ends) == 3


def test_without_a_tracker_nothing_is_logged(run: Path) -> None:
    heatmap.log(FinishedRun(run), {"arm": "self_1.5"}, run / "map.png", QUIET)
    assert not Journal(run).path.exists()


# What it finds

SHAPES = """\
fw: 1
name: learned
dataset:   {name: shapes, size: 16, count: 4000, held_out_count: 1000, colours: 2}
model:     {name: unet, channels: [16, 32, 32]}
process:   {name: ddpm, prediction: v, schedule: cosine}
train:     {steps: 400, batch: 32, lr: 2.0e-3, warmup: 20, ema: 0.98}
sampler:   {name: dpmpp, steps: 2}
samples:   {count: 8, seeds: 1}
metrics:   [{name: fd, space: {name: pca, dims: 2}}]
baseline:  denoiser
arms:      {denoiser: {}}
"""


def test_denoising_learns_what_images_show_and_little_noise_shows_it_best(tmp_path: Path) -> None:
    """On images that it sees three times, of 10 classes; a standard error of 1,000 held-out
    images is 1.6 points."""
    (tmp_path / "recipe.yaml").write_text(SHAPES)
    recipe = load(tmp_path / "recipe.yaml")
    run_plan(
        recipe, plan(recipe), Options(tmp_path / "runs", device="cpu", jobs=1, threads=1), [], QUIET
    )
    asked = Request("denoiser", (0.05, 2.0), images=1500, draws=1, device="cpu")
    found = survey(FinishedRun(tmp_path / "runs" / "learned" / "latest"), asked, QUIET)
    assert found["sigmas"] == [2.0, 0.05]
    rows = {
        block: (trained, untrained)
        for block, (*_, trained), (*_, untrained) in zip(
            found["blocks"],
            found["trained"]["held_out"],
            found["untrained"]["held_out"],
            strict=True,
        )
    }
    learned = {block: rows[block] for block in ("down.2", "mid", "up.0", "up.1", "up.2")}
    assert all(trained > untrained for trained, untrained in learned.values()), learned
    gained = sum(trained - untrained for trained, untrained in learned.values()) / len(learned)
    assert gained > 0.03, learned
    assert rows["up.1"][0] > found["pixels"]["held_out"] + 0.05
    little, much = (
        found["trained"]["held_out"][found["blocks"].index("up.1")][column] for column in (1, 0)
    )
    assert little > much + 0.1


def test_a_recipe_with_scores_for_other_arms_alone_is_mapped_and_sampled(tmp_path: Path) -> None:
    """`recognise` and `agreement` find nothing in an unconditional arm, which is all that is
    read of the recipe."""
    text = RECIPE.replace(
        "pca, dims: 2}}]", "pca, dims: 2}}, {name: agreement, space: pixels}]\nprobes: [recognise]"
    )
    text = text.replace("model:     {name: unet", "model:     {name: jdm").replace(
        "self_guidance", "classifier"
    )
    (tmp_path / "recipe.yaml").write_text(text)
    recipe = load(tmp_path / "recipe.yaml")
    run_plan(
        recipe, plan(recipe), Options(tmp_path / "runs", device="cpu", jobs=1, threads=1), [], QUIET
    )
    folder = tmp_path / "runs" / "mapped" / "latest"
    found = survey(
        FinishedRun(folder),
        Request("unconditional", (0.05,), images=100, draws=1, device="cpu"),
        QUIET,
    )
    assert found["blocks"] == ["down.0", "down.1", "mid", "up.0", "up.1"]
    draw(
        FinishedRun(folder), "unconditional", None, 4, tmp_path / "grid.png", 0, "cpu", None, QUIET
    )
    assert (tmp_path / "grid.png").stat().st_size > 0
