"""`fw reproduce`: a run's scores come out again, bit for bit, and what was changed is named."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from sites import GUIDANCE, fw, site, toy_recipe, write
from test_soundness import flip, ok, stages

from fw.core.files.layout import MANIFEST
from fw.core.files.sealed import stamped
from fw.core.files.unfinished import checksum
from fw.core.stages.sample import Sample
from fw.plugins.metrics.mind import MIND

TINY = Path(__file__).parent / "tiny.yaml"
KEY = "mind_pca"
QUICK = (
    "arms={unconditional: {annotator: null}, self_1.5: {guidance: [self_guidance]}}",
    "train.steps=2",
    "samples={count: 40, seeds: 2}",
    "tracker=null",
    "metrics=[{name: mind, space: pca}]",
)


def tiny(out: Path, *more: str) -> Path:
    """A runs folder with a finished run of all stages."""
    sets = [word for each in (*QUICK, *more) for word in ("--set", each)]
    ok(fw("run", TINY, "--out", out, "--jobs", 1, "--device", "cpu", *sets))
    return out


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("reproduce") / "runs")


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of it that may be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "runs", symlinks=True))


def reproduce(out: Path, *words: str | Path) -> Any:
    return fw("reproduce", out / "tiny/latest", "--device", "cpu", *words)


def edited(file: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    values = json.loads(file.read_text("utf-8"))
    edit(values)
    file.write_text(json.dumps(values), "utf-8")


def sealed_again(file: Path) -> None:
    """The manifest says that the file is as it was stored."""

    def edit(manifest: dict[str, Any]) -> None:
        manifest["files"][file.name] = {"sha256": checksum(file), "bytes": file.stat().st_size}
        manifest.update(stamped(manifest))

    edited(file.parent / MANIFEST, edit)


def lines(answer: Any, words: str) -> list[str]:
    return [line for line in answer.out.splitlines() if words in line]


# From what is stored


def test_the_scores_of_a_run_come_out_again_and_nothing_is_written_into_its_folder(
    out: Path,
) -> None:
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    answer = ok(reproduce(out))
    assert len(lines(answer, "equal")) == 4  # of two arms, of the verdict, and of all
    assert answer.out.endswith("all 3 are equal, bit for bit\n")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


@pytest.mark.parametrize("place", ["mean", "std", "floor", "values[1]"])
def test_a_logged_number_that_was_changed_is_named(out: Path, place: str) -> None:
    def edit(run: dict[str, Any]) -> None:
        entry = run["arms"]["self_1.5"]["metrics"][KEY]
        if place == "values[1]":
            entry["values"][1] += 1e-9
        else:
            entry[place] += 1e-9

    edited(out / "tiny/latest/run.json", edit)
    answer = reproduce(out)
    assert answer.code == 1
    [line] = lines(answer, "differs by 1e-09")
    assert f"in {place}; the store has what was computed" in line
    assert answer.out.endswith(f"1 of 3 are not as logged: self_1.5 {KEY}\n")


def test_a_number_of_real_images_that_was_changed_is_named(out: Path) -> None:
    edited(
        out / "tiny/latest/run.json",
        lambda run: run["arms"]["unconditional"]["real_images"].update(held_out=361),
    )
    answer = reproduce(out)
    assert answer.code == 1
    assert "differs by 1 in held_out" in answer.out
    assert answer.out.endswith("1 of 4 are not as logged: unconditional real_images\n")


def test_scores_that_were_changed_in_the_store_are_damaged(out: Path) -> None:
    edited(
        stages(out, "evaluate")[0] / "scores.json", lambda made: made["floor"].update(mind_pca=0.0)
    )
    answer = reproduce(out)
    assert answer.code == 1
    assert "1 of 4" in answer.out
    [line] = lines(answer, "damaged in the store")
    assert "evaluate" in line
    assert "scores.json" in line


def test_scores_that_were_changed_everywhere_and_sealed_are_found(out: Path) -> None:
    [stage] = [each for each in stages(out, "evaluate") if arm_of(out, each) == "self_1.5"]
    edited(stage / "scores.json", lambda made: made["floor"].update(mind_pca=0.0))
    sealed_again(stage / "scores.json")
    edited(
        out / "tiny/latest/run.json",
        lambda run: run["arms"]["self_1.5"]["metrics"][KEY].update(floor=0.0),
    )
    answer = reproduce(out)
    assert answer.code == 1
    [line] = lines(answer, "in floor")
    assert "the store has it as logged" in line


def arm_of(out: Path, evaluate: Path) -> str:
    run = json.loads((out / "tiny/latest/run.json").read_text())
    inputs = json.loads((evaluate / MANIFEST).read_text())["payload"]["inputs"]
    return next(name for name, arm in run["arms"].items() if arm["sample_key"] == inputs["sample"])


def test_a_file_of_samples_that_was_altered_is_found_by_its_checksum(out: Path) -> None:
    sample = stages(out, "sample")[0]
    flip(sample / "samples-001-0000000.safetensors")
    answer = reproduce(out)
    assert answer.code == 1
    [line] = lines(answer, "damaged in the store")
    assert "samples-001-0000000.safetensors is wrong" in line
    assert len(lines(answer, KEY)) == 2  # scores of features, which are as they were


def test_samples_that_were_exchanged_are_found_by_what_was_made_of_them(out: Path) -> None:
    file = stages(out, "sample")[0] / "samples-001-0000000.safetensors"
    images = load_file(file)["images"]
    save_file({"images": images.flip(0).roll(1, -1).contiguous()}, file)
    sealed_again(file)
    answer = reproduce(out)
    assert answer.code == 1
    assert lines(answer, "than the store has")
    assert not lines(answer, "differs by")
    answer = reproduce(out, "--from-samples")
    assert answer.code == 1
    assert len(lines(answer, "other bits")) == 1
    assert len([line for line in lines(answer, "differs by") if KEY in line]) == 1


def test_features_of_stored_samples_are_made_again_on_request(out: Path) -> None:
    answer = ok(reproduce(out, "--from-samples"))
    assert len([each for each in lines(answer, "equal") if "features" in each]) == 2
    assert answer.out.endswith("all 6 are equal, bit for bit\n")


def test_every_training_of_a_run_is_scored_again(tmp_path: Path) -> None:
    out = tiny(tmp_path / "runs", "repeats=2")
    answer = ok(reproduce(out))
    assert answer.out.endswith("all 3 are equal, bit for bit\n")
    assert answer.err.count("start  evaluate") == 4

    def edit(run: dict[str, Any]) -> None:
        run["arms"]["self_1.5"]["metrics"][KEY]["trainings"]["1"][0] += 1e-9
        run["verdict"]["comparisons"][0]["decision"] = "better"

    edited(out / "tiny/latest/run.json", edit)
    answer = reproduce(out)
    assert answer.code == 1
    assert "differs by 1e-09 in trainings.1[0]" in answer.out
    assert "differs in comparisons[0].decision" in answer.out


# What is lacking


def test_features_that_are_gone_are_a_sentence_with_what_makes_them(out: Path) -> None:
    for stage in stages(out, "features"):
        shutil.rmtree(stage)
    answer = reproduce(out)
    assert answer.code == 2
    assert "'features self_1.5 in pca space' is not in the store; --from-samples" in answer.err
    ok(reproduce(out, "--from-samples"))


def test_an_arm_whose_samples_are_gone_too_hides_no_other(out: Path) -> None:
    features = stages(out, "features")[0]
    sample = json.loads((features / MANIFEST).read_text())["payload"]["inputs"]["sample"]
    shutil.rmtree(features)
    shutil.rmtree(out / "store" / sample)
    answer = reproduce(out, "--from-samples")
    assert answer.code == 1
    assert len(lines(answer, "is not in the store; --again")) == 1
    assert "1 of " in answer.out.splitlines()[-1]


def test_damaged_features_are_not_used(out: Path) -> None:
    features = stages(out, "features")[0]
    flip(features / "features-000-0000000.safetensors")
    answer = reproduce(out)
    assert answer.code == 1
    assert len(lines(answer, "features-000-0000000.safetensors is wrong")) == 2


def test_a_record_without_its_store_says_what_is_missing(out: Path) -> None:
    shutil.rmtree(out / "store")
    answer = reproduce(out)
    assert answer.code == 2
    assert "store, so the run's samples and their features are not at hand" in answer.err
    assert "--again" in answer.err


def test_a_metric_that_fails_hides_no_other_score(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare, calls = MIND.compare, itertools.count()

    def fail_once(self: MIND, *facts: Any) -> Any:
        if next(calls) == 0:
            raise RuntimeError("no such matrix")
        return compare(self, *facts)

    monkeypatch.setattr(MIND, "compare", fail_once)
    answer = reproduce(out)
    assert answer.code == 1
    assert len(lines(answer, "no such matrix")) == 1
    assert len(lines(answer, "equal")) == 1


def test_a_run_of_before_a_version_was_raised_is_scored_from_its_samples(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sample, "version", Sample.version + 1)
    assert "--from-samples makes it of stored images" in reproduce(out).err
    answer = ok(reproduce(out, "--from-samples"))
    assert "note: the run was made before fw changed some of its results" in answer.err
    assert len(lines(answer, KEY)) == 2


def test_another_device_than_that_of_the_scores_is_said(out: Path) -> None:
    for stage in stages(out, "evaluate"):
        edited(stage / MANIFEST, lambda made: made.update(stamped({**made, "device": "cuda:0"})))
    answer = ok(reproduce(out))
    assert "note: scores were made on cuda:0, and on cpu bits may differ" in answer.err


def test_options_that_are_about_the_other_way_are_refused(out: Path) -> None:
    assert "--again" in reproduce(out, "--out", out / "x").err
    assert "name one" in reproduce(out, "--again", "--from-samples").err
    assert "the run itself lies there" in reproduce(out, "--again", "--out", out).err


# Anew


def test_a_run_made_anew_has_the_same_keys_bits_and_scores(out: Path, tmp_path: Path) -> None:
    there = tmp_path / "anew"
    answer = ok(reproduce(out, "--again", "--jobs", "1", "--out", there))
    assert lines(answer, "train unet, kmeans of pixels")
    assert len(lines(answer, "train_key")) == len(lines(answer, "sample_key")) == 2
    assert (there / "tiny/latest/run.json").exists()

    def edit(run: dict[str, Any]) -> None:
        run["arms"]["unconditional"]["metrics"][KEY]["mean"] += 1e-9
        run["arms"]["self_1.5"]["train_key"] = "train-0123456789abcdef"

    edited(out / "tiny/latest/run.json", edit)
    answer = reproduce(out, "--again", "--jobs", "1", "--out", there)
    assert answer.code == 1
    assert len(lines(answer, "another key")) == 1
    assert len(lines(answer, "differs by 1e-09 in mean")) == 1


@pytest.fixture
def toys(tmp_path: Path) -> Iterator[Path]:
    """A runs folder with a run that a local plugin was used in, whose file is gone."""
    plugin = write(tmp_path / "mine.py", GUIDANCE.format(name="mine"))
    arms = "arms={plain: {annotator: null}, mine: {guidance: {name: mine, scale: 2.0}}}"
    with site(tmp_path / "site"):
        words = ("--set", arms, "--plugin", plugin, "--jobs", 1, "--device", "cpu")
        ok(fw("run", toy_recipe(tmp_path), "--out", tmp_path / "runs", *words))
        plugin.unlink()
        yield tmp_path / "runs"


def test_local_plugins_are_those_that_the_run_kept(toys: Path) -> None:
    ok(fw("reproduce", toys / "toy/latest", "--device", "cpu"))
    ok(fw("reproduce", toys / "toy/latest", "--device", "cpu", "--again", "--jobs", 1))


def test_the_files_that_a_tracker_keeps_are_enough_to_run_it_anew(
    toys: Path, tmp_path: Path
) -> None:
    """MLflow has the plugins beside the recipe."""
    kept = tmp_path / "a/b/artifacts"
    kept.mkdir(parents=True)
    run = toys / "toy/latest"
    for file in (run / "run.json", run / "recipe.resolved.yaml", run / "plugins/mine.py"):
        shutil.copy(file, kept)
    answer = ok(fw("reproduce", kept, "--device", "cpu", "--again", "--jobs", 1))
    assert "bit for bit" in answer.out
