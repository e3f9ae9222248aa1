"""A finished product is used if it is whole and was made of what lies beside it; else it is made
again, aloud."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import toys
from sites import Answer, fw, products, site, toy_recipe, write

from fw.core.files.layout import MANIFEST
from fw.core.files.sealed import SEAL, stamped
from fw.core.files.unfinished import checksum
from fw.core.store.store import INPUTS, Store


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Answer]]:
    """Runs the toy recipe into <tmp>/out, or another folder of the test's."""
    recipe = toy_recipe(tmp_path)
    with site(tmp_path / "site"):
        yield lambda *words, out="out": fw(
            "run", recipe, "--out", tmp_path / out, "--jobs", 1, "--device", "cpu", *words
        )


def ok(answer: Answer) -> Answer:
    assert answer.code == 0, answer.err
    return answer


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def features_change(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage the features in the store, have them discarded, and let the same encoder give others,
    as on another device."""
    for encoded in stages(out, "encode"):
        flip(encoded / "features.safetensors")
    assert fw("verify", out, "--discard").code == 1
    build = toys.Mean.build

    def other(self: toys.Mean, shape: tuple[int, int, int], classes: int) -> toys.Pool:
        pool = build(self, shape, classes)
        pool.scale.neg_()
        return pool

    monkeypatch.setattr(toys.Mean, "build", other)


def stages(out: Path, kind: str) -> list[Path]:
    return sorted((out / "store").glob(f"{kind}-*"))


def result(out: Path) -> dict:
    return json.loads((out / "toy/latest/run.json").read_text())


def test_what_was_made_of_a_product_that_came_out_otherwise_is_made_again(
    run: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok(run())
    features_change(tmp_path / "out", monkeypatch)
    again = ok(run())
    assert "made of other inputs than those in the store; doing it again" in again.err
    ok(run(out="fresh"))
    assert products(tmp_path / "out") == products(tmp_path / "fresh")
    assert "doing it again" not in ok(run()).err


def test_what_was_made_of_a_product_that_came_out_the_same_stays(
    run: Callable[..., Answer], tmp_path: Path
) -> None:
    ok(run())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/store").glob("[!e]*-*/*")}
    flip(stages(tmp_path / "out", "encode")[0] / "quality.json")
    assert "quality.json is wrong; doing it again" in ok(run()).err
    assert {
        path: path.stat().st_mtime_ns for path in (tmp_path / "out/store").glob("[!e]*-*/*")
    } == before


def test_dependents_can_be_kept_and_the_mixture_is_told_wherever_results_are(
    run: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok(run())
    before = {
        path.name: (path / "model.safetensors").read_bytes()
        for path in stages(tmp_path / "out", "train")
    }
    features_change(tmp_path / "out", monkeypatch)
    ok(run("--keep-dependents"))
    kept = {
        path.name: (path / "model.safetensors").read_bytes()
        for path in stages(tmp_path / "out", "train")
    }
    assert kept == before
    told = "it was made of another product of 'encode mean' than the one in the store"
    assert any(told in warning for warning in result(tmp_path / "out")["warnings"])
    assert told in (tmp_path / "out/toy/latest/report.md").read_text()
    ok(run())
    assert not any(told in warning for warning in result(tmp_path / "out")["warnings"])


def test_a_store_from_before_inputs_were_noted_is_taken_as_it_is_and_notes_them(
    run: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok(run())
    for path in (tmp_path / "out/store").glob(f"*/{MANIFEST}"):
        manifest = json.loads(path.read_text())
        path.write_text(json.dumps({k: v for k, v in manifest.items() if k not in (INPUTS, SEAL)}))
    before = products(tmp_path / "out")
    again = ok(run())
    assert "start" not in again.err
    assert products(tmp_path / "out") == before
    features_change(tmp_path / "out", monkeypatch)
    ok(run())
    ok(run(out="fresh"))
    assert products(tmp_path / "out") == products(tmp_path / "fresh")


@pytest.mark.parametrize("fact", ["seconds", "device", INPUTS, "payload"])
def test_a_changed_fact_in_a_manifest_is_noticed(
    run: Callable[..., Answer], tmp_path: Path, fact: str
) -> None:
    ok(run())
    path = stages(tmp_path / "out", "train")[0] / MANIFEST
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, fact: {"else": 1}}))
    assert f"the checksum of its {MANIFEST} is wrong; doing it again" in ok(run()).err


def test_unfinished_work_on_other_inputs_is_not_continued(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for digest, there in (("a", False), ("a", True), ("b", False)):
        folder = store.begin("train-1", {"encode-1": digest})
        assert (folder / "train.checkpoint").exists() is there
        (folder / "train.checkpoint").touch()


def test_an_arm_whose_product_was_deleted_while_it_ran_has_failed(
    run: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = toys.Euler.sample

    def clumsy(*args: object) -> object:
        for stage in stages(tmp_path / "out", "annotate"):
            shutil.rmtree(stage)
        return sample(*args)

    monkeypatch.setattr(toys.Euler, "sample", clumsy)
    answer = run()
    assert answer.code == 1
    assert "its product is gone from the store" in answer.err
    assert {name: arm["status"] for name, arm in result(tmp_path / "out")["arms"].items()} == {
        "plain": "finished",
        "self_1.0": "failed",
        "self_1.5": "failed",
    }
    monkeypatch.undo()
    ok(run())
    assert {arm["status"] for arm in result(tmp_path / "out")["arms"].values()} == {"finished"}


def test_a_store_or_a_run_folder_that_is_deleted_while_it_runs_ends_in_sentences(
    run: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for what in ("store", "toy", ""):
        with monkeypatch.context() as patch:
            patch.setattr(toys.Halves, "annotate", deleting(tmp_path / "out" / what))
            answer = run()
        assert answer.code == (0 if what == "toy" else 1), answer.err
        assert "Traceback" not in answer.err
        ok(run())
        shutil.rmtree(tmp_path / "out")


def deleting(folder: Path) -> Callable[..., object]:
    annotate = toys.Halves.annotate

    def clumsy(*args: object) -> object:
        shutil.rmtree(folder, ignore_errors=True)
        return annotate(*args)

    return clumsy


def test_what_killed_processes_leave_is_gone_after_the_next_run(
    run: Callable[..., Answer], tmp_path: Path
) -> None:
    ok(run())
    out = tmp_path / "out"
    litter = [
        stages(out, "train")[0] / "train.checkpoint",
        stages(out, "train")[0] / "train.checkpoint.sha256",
        stages(out, "sample")[0] / "samples-000-0000000.safetensors.sha256",
        (out / "toy/latest").resolve() / "run.json.writing",
        out / "store/.writable",
    ]
    for path in litter:
        write(path, "left")
    (out / "toy/.latest").symlink_to("nowhere")
    ok(run())
    assert [
        path for path in [*litter, out / "toy/.latest"] if path.exists() or path.is_symlink()
    ] == []


def test_a_full_disk_at_the_end_is_one_sentence_and_the_same_command_finishes(
    run: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "arms.png")

    with monkeypatch.context() as patch:
        patch.setattr("fw.core.run.conclude.save_arms_figure", full)
        answer = run()
    assert answer.code == 1
    assert "arms.png: the disk is full: free some space" in answer.err
    assert answer.err.endswith("the same command continues from there\n")
    assert "start" not in ok(run()).err


def test_samples_of_stages_that_do_not_belong_together_are_told_of(
    run: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok(run())
    features_change(tmp_path / "out", monkeypatch)
    ok(run("--keep-dependents"))
    manifest = stages(tmp_path / "out", "annotate")[0] / MANIFEST
    facts = json.loads(manifest.read_text())
    (manifest.parent / "quality.json").write_text("{}")  # as if it had been made again since
    facts["files"]["quality.json"] = {
        "sha256": checksum(manifest.parent / "quality.json"),
        "bytes": 2,
    }
    manifest.write_text(json.dumps(stamped(facts)))
    drawn = fw(
        "sample",
        tmp_path / "out/toy/latest",
        "--arm",
        "self_1.0",
        "-n",
        4,
        "-o",
        tmp_path / "grid.png",
    )
    assert drawn.code == 0, drawn.err
    assert (
        "train linear, halves of mean: it was made of another product of 'annotate halves'"
        in drawn.err
    )


def test_work_that_is_begun_again_because_of_its_inputs_is_told_of(
    run: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(toys.Euler, "sample", lambda *_: 1 / 0)
        assert run().code == 1
    for begun in (tmp_path / "out/store").glob("sample-*.partial/inputs.sha256"):
        flip(begun)
    assert ok(run()).err.count("is not of these inputs; beginning again") == 3
