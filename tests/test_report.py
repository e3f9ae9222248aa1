"""Scores that are not ordinary numbers are reported as what they are."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import toys
from sites import fw, site, toy_recipe

from fw.core.report import summary


def test_an_infinite_score_has_an_infinite_mean_and_a_finite_one_beside_it_is_kept() -> None:
    found = summary([1.0, math.inf, 3.0], 0.5)
    assert (found["mean"], found["std"], found["floor"]) == (math.inf, math.inf, 0.5)
    assert found["values"] == [1.0, math.inf, 3.0]


def test_scores_whose_sum_is_no_float_have_a_mean() -> None:
    largest = sys.float_info.max
    assert summary([largest, largest], None)["mean"] == largest


def test_a_run_with_infinite_scores_is_finished_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = toy_recipe(tmp_path)
    monkeypatch.setattr(toys.Gap, "compare", lambda metric, *_: dict.fromkeys(metric.keys, math.inf))
    with site(tmp_path / "site"):
        done = fw("run", recipe, "--out", tmp_path / "out", "--jobs", 1, "--device", "cpu")
        assert done.code == 0, done.err
        assert "inf ± inf" in done.out
        assert fw("compare", tmp_path / "out/toy/latest").out.count("inf ± inf") == 3
    arms = json.loads((tmp_path / "out/toy/latest/run.json").read_text())["arms"]
    assert {arm["metrics"]["gap_flat"]["mean"] for arm in arms.values()} == {math.inf}
