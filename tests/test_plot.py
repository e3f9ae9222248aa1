"""`fw plot`: which arms make the axis, which make a series, and what cannot be drawn."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
from matplotlib.axes import Axes

from fw.core.commands.plot import plot
from fw.core.errors import FwError
from fw.core.recipe.loading import load
from fw.core.recipe.source import read
from fw.core.report import figures
from fw.core.report.curves import save_curves_figure
from fw.core.report.series import Lines, lines
from fw.core.run.finished import FinishedRun

TINY = Path(__file__).parent / "tiny.yaml"

ARMS = """\
  unconditional: {annotator: null}
  km_50: {annotator: {name: kmeans, clusters: 50}, guidance: {name: self_guidance, scale: 1.5}}
  km_5: {annotator: {name: kmeans, clusters: 5}, guidance: {name: self_guidance, scale: 1.5}}
  km_500: {annotator: {name: kmeans, clusters: 500}, guidance: {name: self_guidance, scale: 1.5}}
  km_5_strong: {annotator: {name: kmeans, clusters: 5}, guidance: {name: self_guidance, scale: 2.5}}
  km_50_off: {annotator: {name: kmeans, clusters: 50}}
  random_50: {annotator: {name: random, clusters: 50}, guidance: {name: cfg, scale: 1.5}}
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder as `fw run` leaves it, with made-up scores."""
    text = TINY.read_text()
    (tmp_path / "recipe.yaml").write_text(text[: text.index("arms:")] + "arms:\n" + ARMS)
    recipe = load(tmp_path / "recipe.yaml")
    arms = {
        name: {
            "status": "finished",
            "nfe": 3,
            "seconds": 1.0,
            "real_images": {"held_out": 10},
            "metrics": {
                key: {
                    "mean": place + offset,
                    "std": 0.5,
                    "values": [place + offset] * 3,
                    "floor": 0.25,
                }
                for offset, key in enumerate(("fd_pca", "recall"))
            },
        }
        for place, name in enumerate(recipe.arms)
    }
    (tmp_path / "recipe.resolved.yaml").write_text(recipe.to_yaml())
    better = {"fd_pca": "lower", "recall": "higher"}
    write(
        tmp_path,
        {
            "recipe": "tiny",
            "baseline": "unconditional",
            "headline": "fd_pca",
            "better": better,
            "arms": arms,
        },
    )
    return tmp_path


def write(folder: Path, result: dict[str, Any]) -> None:
    (folder / "run.json").write_text(json.dumps(result))


def result_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def resolved(folder: Path) -> dict[str, Any]:
    return read(folder / "recipe.resolved.yaml").data


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any, Any]]:
    """What is drawn: the names of matplotlib's methods, and what they were given."""
    calls: list[tuple[str, Any, Any]] = []

    def watch(name: str) -> None:
        real = getattr(Axes, name)

        def spy(axis: Axes, *args: Any, **kw: Any) -> Any:
            calls.append((name, args, kw))
            return real(axis, *args, **kw)

        monkeypatch.setattr(Axes, name, spy)

    for name in ("errorbar", "axhline", "axhspan", "set_xscale"):
        watch(name)
    return calls


def test_arms_that_differ_in_more_than_x_are_of_different_series(run):
    series = lines(result_of(run), resolved(run), "annotator.clusters").series
    assert series == {
        "kmeans, self_guidance, scale 1.5": [(5, "km_5"), (50, "km_50"), (500, "km_500")],
        "kmeans, self_guidance, scale 2.5": [(5, "km_5_strong")],
        "kmeans": [(50, "km_50_off")],
        "random, cfg, scale 1.5": [(50, "random_50")],
    }


def test_any_number_of_the_recipe_can_be_the_axis(run):
    series = lines(result_of(run), resolved(run), "guidance.0.scale").series
    assert series["kmeans, clusters 5, self_guidance"] == [(1.5, "km_5"), (2.5, "km_5_strong")]


def test_a_point_is_a_mean_with_the_spread_over_seeds_and_the_baseline_is_a_line(
    run, drawn, tmp_path
):
    plot(FinishedRun(run), "annotator.clusters", ["fd_pca"], tmp_path / "sweep.png")
    lines = {kw["label"]: (args, kw["yerr"]) for name, args, kw in drawn if name == "errorbar"}
    (x, y), error = lines["kmeans, self_guidance, scale 1.5"]
    assert (x, y, error) == ([5, 50, 500], [2, 1, 3], [0.5, 0.5, 0.5])
    assert {kw.get("label"): args[0] for name, args, kw in drawn if name == "axhline"} == {
        "unconditional": 0,
        None: 0.25,
    }
    assert [args for name, args, _ in drawn if name == "axhspan"] == [(-0.5, 0.5)]
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_there_is_one_panel_per_score_and_all_by_default(run, drawn, tmp_path):
    plot(FinishedRun(run), "annotator.clusters", [], tmp_path / "sweep.png")
    assert len([name for name, _, _ in drawn if name == "axhspan"]) == 2


@pytest.mark.parametrize(
    ("places", "logarithmic"), [((3, 30), False), ((3, 31), True), ((0, 31), False)]
)
def test_the_axis_is_logarithmic_where_x_spans_more_than_a_factor_of_ten(
    drawn, tmp_path, places, logarithmic
):
    score = {"mean": 1.0, "std": 0.1, "values": [1.0], "floor": 0.0}
    arms = {name: {"metrics": {"fd": score}} for name in ("a", "b", "base")}
    series = {"arms": list(zip(map(float, places), ("a", "b"), strict=True))}
    figures.save_sweep_figure(Lines("x", series), arms, ["fd"], "base", tmp_path / "sweep.png")
    assert [args for name, args, _ in drawn if name == "set_xscale"] == [("log",)] * logarithmic


@pytest.mark.parametrize(
    ("places", "logarithmic"),
    [
        ((1, 10, 100), True),
        ((10, 20, 40, 80), True),
        ((10, 30, 100), True),
        ((3, 10, 30, 100, 300, 800), True),
        ((10, 20, 30), False),
        (tuple(range(1, 41)), False),
        ((0, 1, 10, 100), False),
        ((1, 2, 90), True),
    ],
)
def test_the_axis_is_logarithmic_where_the_spacing_is_geometric(
    places: tuple[float, ...], logarithmic: bool
) -> None:
    assert figures.logarithmic(places) == logarithmic


def test_an_error_bar_is_the_interval_of_several_trainings_and_says_so() -> None:
    trainings = {"0": [1.0, 1.2], "1": [1.5, 1.3], "2": [0.7, 0.9]}
    means = [1.1, 1.4, 0.8]
    several = {"mean": 1.1, "std": 0.3, "values": means, "trainings": trainings}
    low, high = scipy.stats.t.interval(0.95, 2, loc=1.1, scale=scipy.stats.sem(means))
    assert figures.reach(several) == pytest.approx((high - low) / 2)
    one = {"mean": 1.1, "std": 0.3, "values": [1.0, 1.2], "trainings": {"0": [1.0, 1.2]}}
    assert figures.reach(one) == 0.3
    said = [figures.spread_in_words({"arm": {"fd": each}}) for each in (several, one)]
    assert "95 % interval over 3 training seeds" in said[0]
    assert "std over 2 sampling seeds of one training" in said[1]


def swept(folder: Path, over: dict[str, list[Any]], points: list[str]) -> dict[str, Any]:
    """The run as one of a sweep."""
    return {**result_of(folder), "sweep": {"kind": "grid", "over": over, "points": points}}


def test_a_sweep_is_drawn_along_its_longest_key_and_has_no_other_arms(run: Path) -> None:
    over: dict[str, list[Any]] = {
        "guidance.0.scale": [1.5, 2.5],
        "annotator.clusters": [5, 50, 500],
    }
    points = ["km_500", "km_50", "km_5", "km_5_strong"]
    found = lines(swept(run, over, points), resolved(run))
    assert found.key == "annotator.clusters"
    assert found.series == {
        "scale 1.5": [(5, "km_5"), (50, "km_50"), (500, "km_500")],
        "scale 2.5": [(5, "km_5_strong")],
    }
    along_scale = lines(swept(run, over, points), resolved(run), "guidance.scale")
    assert list(along_scale.series) == ["clusters 5", "clusters 50", "clusters 500"]


def test_values_that_are_no_numbers_have_places_with_names(
    run: Path, tmp_path: Path, drawn: list[tuple[str, Any, Any]]
) -> None:
    over = {"annotator": ["kmeans", "random"]}
    result = swept(run, over, ["km_50", "random_50"])
    found = lines(result, resolved(run))
    assert list(found.ticks) == ["kmeans", "random"]
    assert sorted(point for points in found.series.values() for point in points) == [
        (0, "km_50"),
        (1, "random_50"),
    ]
    figures.save_sweep_figure(
        found, result["arms"], ["fd_pca"], "unconditional", tmp_path / "sweep.png"
    )
    assert {kw["linestyle"] for name, _, kw in drawn if name == "errorbar"} == {"none"}


def test_components_of_one_name_have_places_of_their_own(run: Path) -> None:
    over = {"annotator": ["kmeans", {"name": "kmeans", "clusters": 5}, "random"]}
    found = lines(swept(run, over, ["km_50", "km_5", "random_50"]), resolved(run))
    assert list(found.ticks) == ["kmeans, clusters 50", "kmeans, clusters 5", "random, clusters 50"]
    places = [place for points in found.series.values() for place, _ in points]
    assert sorted(places) == [0, 1, 2]


@pytest.mark.parametrize(
    ("key", "scores", "said"),
    [
        (
            "annotator.cluster",
            [],
            r"--x annotator.cluster: no arm has a number there.*keys that differ: "
            r"annotator.clusters",
        ),
        ("train.steps", [], r"--x train.steps: it is 60 in every arm that has it"),
        ("annotator.name", [], r"--x annotator.name: no arm has a number there"),
        ("annotator.clusters", ["fid"], r"--y fid: no such score in .* \(known: fd_pca, recall\)"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_one_sentence(run, tmp_path, key, scores, said):
    with pytest.raises(FwError, match=said):
        plot(FinishedRun(run), key, scores, tmp_path / "sweep.png")
    assert not (tmp_path / "sweep.png").exists()


def test_a_run_that_is_not_finished_is_refused_but_only_for_arms_that_matter(run, tmp_path):
    whole = result_of(run)
    for status in ("pending", "failed"):
        partial = copy.deepcopy(whole)
        partial["arms"]["km_5"] |= {"status": status, "metrics": {}}
        write(run, partial)
        with pytest.raises(FwError, match=r"run 'tiny': km_5 not finished; run its recipe again"):
            plot(FinishedRun(run), "annotator.clusters", [], tmp_path / "sweep.png")
    partial = copy.deepcopy(whole)
    partial["arms"]["km_50_off"] |= {"status": "pending", "metrics": {}}
    write(run, partial)
    plot(FinishedRun(run), "guidance.0.scale", [], tmp_path / "sweep.png")
    write(run, {"recipe": "tiny"})
    with pytest.raises(FwError, match=r"stopped before it had results"):
        plot(FinishedRun(run), "annotator.clusters", [], tmp_path / "sweep.png")


def test_a_picture_has_a_place_to_go(run, tmp_path):
    for wrong in (tmp_path / "sweep.pdf", tmp_path / "nowhere" / "sweep.png"):
        with pytest.raises(FwError, match=r"name a .png file in a folder that exists"):
            plot(FinishedRun(run), "annotator.clusters", [], wrong)


def test_the_command_writes_the_picture_and_prints_where(run, tmp_path):
    output = tmp_path / "there.png"
    command = [
        sys.executable,
        "-m",
        "fw.core",
        "plot",
        str(run),
        "--x",
        "annotator.clusters",
        "--y",
        "fd_pca,recall",
    ]
    done = subprocess.run(
        [*command, "-o", str(output)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, str(output)), done.stderr
    assert output.stat().st_size > 5000


@pytest.mark.parametrize(
    ("means", "border"),
    [
        ([1.0, 2.0, 3.0], None),
        ([0.4, 0.5, 0.6, 24.8], pytest.approx(2.2)),
        ([-0.1, 0.1, 9.0], None),
        ([0.0, 0.0, 9.0], None),
        ([], None),
    ],
)
def test_a_bar_that_makes_the_others_too_short_is_cut_at_four_medians(
    means: list[float], border: float | None
) -> None:
    arms = {str(number): {"metrics": {"fd": {"mean": mean}}} for number, mean in enumerate(means)}
    assert figures.cut({**arms, "unscored": {"metrics": {}}}, "fd") == border


def test_the_length_of_a_cut_bar_is_written_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(Axes, "text", lambda _axis, _x, _y, text, **_: told.append(text))
    arms = {
        name: {"metrics": {"fd": {"mean": mean, "std": 0.0, "values": [mean], "floor": None}}}
        for name, mean in (("base", 0.5), ("good", 0.4), ("bad", 24.83))
    }
    figures.save_arms_figure(arms, ["fd"], "base", tmp_path / "arms.png")
    assert told == ["24.8 \N{RIGHTWARDS ARROW}"]


def test_the_figure_of_the_arms_is_drawn_again_only_where_it_shows_something_else(
    tmp_path: Path,
) -> None:
    def arms(mean: float) -> dict[str, Any]:
        score = {"mean": mean, "std": 0.0, "values": [mean], "floor": None}
        return {"base": {"metrics": {"fd": score}, "seconds": mean}}

    path = tmp_path / "arms.png"
    figures.save_arms_figure(arms(1.0), ["fd"], "base", path)
    first = path.read_bytes()
    written = path.stat().st_mtime_ns
    figures.save_arms_figure(arms(1.0), ["fd"], "base", path)
    assert path.stat().st_mtime_ns == written
    figures.save_arms_figure(arms(2.0), ["fd"], "base", path)
    assert path.read_bytes() != first
    path.write_bytes(first[:100])
    figures.save_arms_figure(arms(1.0), ["fd"], "base", path)
    assert path.read_bytes() == first


def score(mean: float, floor: float | None = None) -> dict[str, Any]:
    std = 0.1 if math.isfinite(mean) else math.inf
    return {"mean": mean, "std": std, "values": [mean], "floor": floor}


@pytest.mark.filterwarnings("error")
def test_scores_that_are_not_finite_are_written_in_the_figure_and_leave_the_others_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(Axes, "text", lambda _axis, _x, _y, text, **_: written.append(text))
    scores = {"base": 0.5, "good": 0.4, "far": math.inf, "lost": math.nan}
    arms = {name: {"metrics": {"fd": score(mean, math.inf)}} for name, mean in scores.items()}
    assert figures.cut(arms, "fd") is None
    figures.save_arms_figure(arms, ["fd"], "base", tmp_path / "arms.png")
    assert written == ["inf", "nan"]
    series = {"arms": [(1.0, "good"), (2.0, "far"), (3.0, "lost")]}
    figures.save_sweep_figure(Lines("x", series), arms, ["fd"], "base", tmp_path / "sweep.png")
    figures.save_sweep_figure(Lines("x", series), arms, ["fd"], "far", tmp_path / "sweep.png")


@pytest.mark.filterwarnings("error")
def test_curves_of_snapshots_are_of_the_arms_that_have_the_score_and_of_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[list[int], list[float]]] = []
    plot = Axes.plot

    def kept(axis: Axes, *points: Any, **style: Any) -> Any:
        drawn.append((list(points[0]), list(points[1])))
        return plot(axis, *points, **style)

    monkeypatch.setattr(Axes, "plot", kept)

    def snapshots(**scores: list[float]) -> dict[str, Any]:
        steps = [
            {key: score(values[place]) for key, values in scores.items()} for place in range(2)
        ]
        made = [
            {"step": 10 * (1 + place), "count": 5, "metrics": each}
            for place, each in enumerate(steps)
        ]
        return {"snapshots": made}

    arms = {"plain": snapshots(fd=[2.0, 1.0]), "good": snapshots(fd=[math.inf, 1.0], agree=[0, 1])}
    result = {"baseline": "plain", "arms": arms}
    save_curves_figure(result, ["fd", "agree"], tmp_path / "curves.png")
    assert drawn == [([10, 20], [2.0, 1.0]), ([20], [1.0]), ([], []), ([10, 20], [0, 1])]
    save_curves_figure(result, ["of_another_metric"], tmp_path / "curves.png")
