"""`fw compare`: runs of one recipe from several seeds are one, and others stand beside it."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sites import Answer, fw, site, toy_recipe

LONGER = "train={steps: 6, batch: 8, warmup: 1}"
FEWER = "samples={count: 5, seeds: 3}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Runs of the toy recipe from three seeds, and of two others, each in a runs folder of its own
    so that nothing but their record is common."""
    folder = tmp_path_factory.mktemp("compared")
    recipe = toy_recipe(folder)
    wanted = {
        **{f"seed{seed}": (f"seed={seed}",) for seed in range(3)},
        "all": ("repeats=3",),
        "longer": ("repeats=3", LONGER),
        "fewer": (FEWER,),
    }
    with site(folder / "site"):
        for name, sets in wanted.items():
            words = [word for each in sets for word in ("--set", each)]
            done = fw("run", recipe, *words, "--out", folder / name, "--jobs", 1, "--device", "cpu")
            assert done.code == 0, done.err
        yield {name: folder / name / "toy/latest" for name in wanted}


def compared(*runs: Path) -> dict[str, Any]:
    answer = fw("compare", *runs, "--json")
    assert answer.code == 0, answer.err
    return dict(json.loads(answer.out))


def test_runs_from_several_seeds_are_what_repeats_would_have_made(runs: dict[str, Path]) -> None:
    [joined] = compared(*(runs[f"seed{seed}"] for seed in (2, 0, 1)))["runs"]
    [whole] = compared(runs["all"])["runs"]
    for name, arm in whole["arms"].items():
        assert joined["arms"][name]["metrics"] == arm["metrics"]
    assert joined["verdict"] == whole["verdict"]
    assert joined["seeds"] == whole["seeds"] == [0, 1, 2]
    shown = fw("compare", *(runs[f"seed{seed}"] for seed in (2, 0, 1))).out
    assert "toy, seeds 0 to 2" in shown
    assert whole["verdict"]["sentences"][0] in shown


def test_a_run_that_is_named_twice_counts_once(runs: dict[str, Path]) -> None:
    [once] = compared(runs["seed0"], runs["seed0"])["runs"]
    assert once["seeds"] == [0]


def test_arms_of_other_recipes_are_compared_by_the_trainings_that_share_a_seed(
    runs: dict[str, Path],
) -> None:
    found = compared(runs["all"], runs["longer"])
    first, second = (
        {name: arm["metrics"]["gap_flat"] for name, arm in run["arms"].items()}
        for run in found["runs"]
    )
    differences = {each["arm"]: each for each in found["differences"]}
    assert differences.keys() == {"plain", "self_1.0", "self_1.5"}
    for name, one in differences.items():
        pairs = zip(second[name]["values"], first[name]["values"], strict=True)
        values = [longer - shorter for longer, shorter in pairs]
        assert one["values"] == pytest.approx(values)
        half = 4.302652729911275 * statistics.stdev(values) / math.sqrt(3)
        assert one["interval"] == pytest.approx(
            [one["difference"] - half, one["difference"] + half]
        )
    shown = fw("compare", runs["all"], runs["longer"]).out
    assert "plain [1]" in shown
    assert "plain [2]" in shown
    assert "[1] toy, seeds 0 to 2" in shown
    assert "plain [2] against [1]:" in shown


def test_what_is_the_same_in_both_is_one_row_with_both_marks(runs: dict[str, Path]) -> None:
    assert "real held-out [1][2]" in fw("compare", runs["all"], runs["longer"]).out


def test_scores_of_other_rulers_are_marked_and_not_subtracted(runs: dict[str, Path]) -> None:
    found = compared(runs["seed0"], runs["fewer"])
    assert found["differences"] == []
    assert found["not_comparable"] == ["gap_flat: samples differ: 6 in [1]; 5 in [2]"]
    shown = fw("compare", runs["seed0"], runs["fewer"]).out
    assert "gap_flat*" in shown
    assert "samples differ: 6 in [1]; 5 in [2]" in shown


def test_every_value_is_a_line_of_csv(runs: dict[str, Path]) -> None:
    lines = list(csv.DictReader(io.StringIO(fw("compare", runs["all"], "--csv").out)))
    record = json.loads((runs["all"] / "run.json").read_text())
    assert len(lines) == 3 * 3 * 3
    values = [float(line["value"]) for line in lines if line["arm"] == "plain"]
    trainings = record["arms"]["plain"]["metrics"]["gap_flat"]["trainings"]
    assert values == [value for seed in ("0", "1", "2") for value in trainings[seed]]
    assert {line["role"] for line in lines} == {"baseline", "candidate"}


def test_a_run_of_before_there_were_verdicts_is_compared_with_its_baseline(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    record = json.loads((runs["seed0"] / "run.json").read_text())
    for later in ("verdict", "repeats", "recipe_key", "rulers"):
        del record[later]
    for arm in record["arms"].values():
        del arm["role"], arm["metrics"]["gap_flat"]["trainings"]
    (tmp_path / "run.json").write_text(json.dumps(record))
    answer: Answer = fw("compare", tmp_path)
    assert answer.code == 0, answer.err
    assert "Undecided against plain" in answer.out


def edited(run: Path, folder: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """A run's record in a folder of its own, after `edit`."""
    record = json.loads((run / "run.json").read_text())
    edit(record)
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_runs_of_one_recipe_that_were_measured_otherwise_are_not_one(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    def measured_before(record: dict[str, Any]) -> None:
        record["rulers"]["gap_flat"]["metric"] = "gap of before"

    before = edited(runs["seed1"], tmp_path / "before", measured_before)
    found = compared(runs["seed0"], before)
    assert [run["seeds"] for run in found["runs"]] == [[0], [1]]
    [reason] = found["not_comparable"]
    assert "metric differ: gap " in reason
    assert "gap of before in [2]" in reason


def test_what_is_not_known_to_be_of_one_ruler_is_not_subtracted(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    def older(record: dict[str, Any]) -> None:
        del record["rulers"], record["recipe_key"]

    found = compared(runs["seed0"], edited(runs["longer"], tmp_path / "older", older))
    assert found["differences"] == []
    [reason] = found["not_comparable"]
    assert "not known of [2]" in reason


def test_an_arm_that_failed_in_the_first_run_is_compared_by_the_others(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    def failed(record: dict[str, Any]) -> None:
        record["arms"]["self_1.5"] |= {"metrics": {}, "status": "failed"}
        compared = record["verdict"]["comparisons"]
        record["verdict"]["comparisons"] = [each for each in compared if each["arm"] != "self_1.5"]

    first = edited(runs["seed0"], tmp_path / "failed", failed)
    [joined] = compared(first, runs["seed1"], runs["seed2"])["runs"]
    trainings = {each["arm"]: len(each["values"]) for each in joined["verdict"]["comparisons"]}
    assert trainings == {"self_1.0": 3, "self_1.5": 2}


def test_probes_of_several_runs_are_those_of_all_their_trainings(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    def probed(seeds: range) -> Callable[[dict[str, Any]], None]:
        def edit(record: dict[str, Any]) -> None:
            record["probes"] = {"linear_model": "higher"}
            values = {str(seed): 0.1 * seed for seed in seeds}
            for arm in record["arms"].values():
                arm["probes"] = {"linear_model": statistics.fmean(values.values())}
                arm["probe_trainings"] = {"linear_model": values}

        return edit

    several = edited(runs["all"], tmp_path / "several", probed(range(3)))
    one = edited(runs["seed0"], tmp_path / "one", probed(range(2, 4)))
    [joined] = compared(several, one)["runs"]
    assert joined["arms"]["plain"]["probes"]["linear_model"] == pytest.approx(0.15)
    assert "0.150 ± 0.129" in fw("compare", several, one).out


def test_the_page_has_the_table_and_every_verdict_and_needs_nothing_else(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    answer = fw("compare", runs["all"], runs["fewer"], "--html", tmp_path / "page.html")
    assert (answer.code, answer.out) == (0, ""), answer.err
    page = (tmp_path / "page.html").read_text()
    for text in (
        "[1] toy, seeds 0 to 2",
        "[2] toy, seed 0",
        "Undecided against plain",
        "gap_flat*",
    ):
        assert text in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_runs_are_read_from_mlflow_by_its_own_names(tmp_path: Path) -> None:
    recipe, out = toy_recipe(tmp_path), tmp_path / "out"
    with site(tmp_path / "site"):
        options = ("--out", out, "--jobs", 1, "--device", "cpu", "--set", "tracker=mlflow")
        done = fw("run", recipe, *options)
        assert done.code == 0, done.err
    handle = json.loads((out / "toy/latest/run.json").read_text())["mlflow"]
    shutil.rmtree(out / "toy")
    for id_ in (handle["parent_run_id"], handle["children"]["plain"]):
        answer = fw("compare", f"runs:/{id_}", "--out", out)
        assert answer.code == 0, answer.err
        assert "toy, seed 0" in answer.out
    unknown = fw("compare", f"runs:/{'0' * 32}", "--out", out)
    assert unknown.code == 2
    assert unknown.err.count("\n") == 1
    nowhere = fw("compare", f"runs:/{'0' * 32}", "--out", tmp_path / "nowhere")
    assert (nowhere.code, (tmp_path / "nowhere").exists()) == (2, False)
    assert "there is no database" in nowhere.err
