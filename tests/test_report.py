"""Scores that are not ordinary numbers are reported as what they are."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import toys
from sites import fw, site, toy_recipe

from fw.core.report.basis import basis
from fw.core.report.collect import summary
from fw.core.report.markdown import markdown
from fw.core.report.runfile import read_record


def test_an_infinite_score_has_an_infinite_mean_and_a_finite_one_beside_it_is_kept() -> None:
    found = summary({0: [1.0, math.inf, 3.0]})
    assert (found["mean"], found["std"]) == (math.inf, math.inf)
    assert found["values"] == [1.0, math.inf, 3.0]


def test_scores_whose_sum_is_no_float_have_a_mean() -> None:
    largest = sys.float_info.max
    assert summary({0: [largest, largest]})["mean"] == largest
    assert summary({0: [largest, largest], 1: [largest]})["mean"] == largest


def test_several_trainings_are_one_value_each_and_a_single_one_is_its_sampling_seeds() -> None:
    assert summary({0: [1.0, 3.0]})["values"] == [1.0, 3.0]
    found = summary({0: [1.0, 3.0], 1: [5.0, 7.0]})
    assert (found["values"], found["mean"]) == ([2.0, 6.0], 4.0)
    assert found["std"] == pytest.approx(math.sqrt(8))
    assert found["trainings"] == {"0": [1.0, 3.0], "1": [5.0, 7.0]}


def test_a_run_with_infinite_scores_is_finished_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toy_recipe(tmp_path)
    monkeypatch.setattr(
        toys.Gap, "compare", lambda metric, *_: dict.fromkeys(metric.keys, math.inf)
    )
    with site(tmp_path / "site"):
        done = fw("run", recipe, "--out", tmp_path / "out", "--jobs", 1, "--device", "cpu")
        assert done.code == 0, done.err
        assert "inf ± inf" in done.out
        assert fw("compare", tmp_path / "out/toy/latest").out.count("inf ± inf") == 3
    arms = read_record(tmp_path / "out/toy/latest")["arms"]
    assert {arm["metrics"]["gap_flat"]["mean"] for arm in arms.values()} == {math.inf}


def test_the_report_says_between_what_values_new_images_score_by_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        toys.Gap,
        "by_chance",
        lambda metric, prepared, count: dict.fromkeys(metric.keys, (0.25, count / 4)),
    )
    with site(tmp_path / "site"):
        done = fw(
            "run", toy_recipe(tmp_path), "--out", tmp_path / "out", "--jobs", 1, "--device", "cpu"
        )
        assert done.code == 0, done.err
    folder = tmp_path / "out/toy/latest"
    result = json.loads((folder / "run.json").read_text())
    count = result["samples"]["count"]
    limits = [arm["metrics"]["gap_flat"]["by_chance"] for arm in result["arms"].values()]
    assert limits == [[0.25, count / 4]] * len(limits)
    said = f"gap_flat 0.250 to {count / 4:.3f}"
    assert said in (folder / "report.md").read_text(encoding="utf-8").replace("\\_", "_")


def test_the_report_says_what_each_score_and_its_floor_are_of(tmp_path: Path) -> None:
    with site(tmp_path / "site"):
        recipe = toy_recipe(tmp_path)
        done = fw("run", recipe, "--out", tmp_path / "out", "--jobs", 1, "--device", "cpu")
        assert done.code == 0, done.err
    folder = tmp_path / "out/toy/latest"
    result = json.loads((folder / "run.json").read_text())
    score = result["arms"]["plain"]["metrics"]["gap_flat"]
    real = result["arms"]["plain"]["real_images"]
    assert score["basis"] == {
        "samples": result["samples"]["count"],
        "reference": "training images",
        "reference_images": real["train"],
        "space": "flat",
        "held_out": real["held_out"],
        "floor": "equal",
    }
    said = f"{score['basis']['samples']} samples against {real['train']} training images"
    assert said in (folder / "report.md").read_text(encoding="utf-8")


def test_a_floor_says_where_it_is_of_fewer_images_than_there_are_samples() -> None:
    common = {"samples": 3000, "reference": "training images", "reference_images": 1437}
    rest = {"space": "pca", "held_out": 360}
    extrapolated, fewer = ({**common, **rest, "floor": how} for how in ("extrapolated", "fewer"))
    metrics = {
        "fd_pca": {"basis": extrapolated, "floor": 0.1},
        "precision_pca": {"basis": fewer, "floor": 0.9},
        "recall_pca": {"basis": fewer, "floor": None},
        "fd_ratio_pca": {"basis": extrapolated, "floor": 1.0},
        "score": {"basis": {**fewer, "reference_images": 0}, "floor": 5.0},
        "from_before": {"floor": None},
    }
    arms = {"a": {"metrics": metrics}, "b": {"metrics": metrics}}
    fd, precision, recall, score = basis({"arms": arms})
    assert fd.startswith("fd_pca, fd_ratio_pca: 3,000 samples against 1,437 training images, in ")
    assert "by the line through 360 held-out" in fd
    assert precision.endswith(
        "floor: 360 held-out images, which are fewer, for keys that do not depend on it."
    )
    assert recall.endswith("in the space pca; no floor.")
    assert "against no real images" in score


def test_classes_with_names_of_all_kinds_are_shown_as_they_are_called(tmp_path: Path) -> None:
    with site(tmp_path / "site"):
        done = fw(
            "run", toy_recipe(tmp_path), "--out", tmp_path / "out", "--jobs", 1, "--device", "cpu"
        )
        assert done.code == 0, done.err
    result = json.loads((tmp_path / "out/toy/latest/run.json").read_text())
    text = markdown({**result, "classes": ["cat", "<img src=x onerror=alert(1)>", "\x1b[2J"]})
    assert "0 = cat, 1 = \\<img" in text
    assert "\x1b" not in text


def test_names_that_are_also_secrets_stay_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_TOKEN", "self_1.0")
    monkeypatch.setattr("fw.core.messages.secrets._known", set())  # and afterwards it is none
    words = (
        "--out",
        tmp_path / "out",
        "--jobs",
        1,
        "--device",
        "cpu",
        "--set",
        "baseline=self_1.0",
    )
    with site(tmp_path / "site"):
        assert fw("run", toy_recipe(tmp_path), *words).code == 0
        assert fw("compare", tmp_path / "out/toy/latest").code == 0
    assert json.loads((tmp_path / "out/toy/latest/run.json").read_text())["baseline"] == "self_1.0"
