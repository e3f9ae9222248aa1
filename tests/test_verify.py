"""No product is used unchecked: its bytes are compared when somebody reads it, once, and not at
every start."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sites import Answer, fw, products, site, toy_recipe
from test_one_look import counted
from test_soundness import flip, ok, stages

from fw.core.files.layout import MANIFEST
from fw.core.store.store import Store


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def run(tmp_path: Path, out: Path) -> Iterator[Callable[..., Answer]]:
    """Runs the toy recipe, for the first time before the test."""
    recipe = toy_recipe(tmp_path)
    with site(tmp_path / "site"):

        def again(*words: object) -> Answer:
            jobs = () if "--jobs" in words else ("--jobs", 1)
            return fw("run", recipe, "--out", out, "--device", "cpu", *jobs, *map(str, words))

        ok(again())
        yield again


def test_a_start_reads_no_large_file_and_a_dry_run_nothing_but_manifests(
    run: Callable[..., Answer], out: Path
) -> None:
    untracked = ("--set", "tracker=null")  # a tracker may want the weights
    ok(run(*untracked))
    with counted(out / "store") as opened:
        ok(run(*untracked))
    assert [name for name in opened if name.endswith(".safetensors")] == []
    assert any(name.endswith("/scores.json") for name in opened)
    with counted(out / "store") as opened:
        ok(run("--dry-run"))
    assert {Path(name).name for name in opened if Path(name).suffix} == {MANIFEST}


def test_a_product_that_many_stages_read_is_read_twice_to_compare_and_to_use(
    run: Callable[..., Answer], out: Path
) -> None:
    for stage in stages(out, "sample"):
        shutil.rmtree(stage)
    with counted(out / "store") as opened:
        ok(run())
    compared = {name: count for name, count in opened.items() if name.endswith("model.safetensors")}
    assert set(compared.values()) == {1}  # the library that reads tensors is not heard


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_damaged_product_is_made_again_when_a_stage_reads_it(
    run: Callable[..., Answer], out: Path, jobs: int
) -> None:
    before = products(out)
    for name in ("features", "encoder"):
        for encoded in stages(out, "encode"):
            flip(encoded / f"{name}.safetensors")
    assert "start" not in ok(run("--jobs", jobs)).err  # nobody reads them
    for kind in ("annotate", "evaluate"):
        for stage in stages(out, kind):
            shutil.rmtree(stage)
    answer = ok(run("--jobs", jobs))
    assert answer.err.count(".safetensors is wrong; doing it again") == len(stages(out, "encode"))
    assert products(out) == before


def test_a_product_that_is_damaged_as_often_as_it_is_made_fails_its_readers(
    run: Callable[..., Answer], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = Store.publish

    def rotting(store: Store, stage: str, *facts: object) -> None:
        publish(store, stage, *facts)  # type: ignore[arg-type]
        if stage.startswith("train"):
            flip(store.path(stage) / "model.safetensors")

    for kind in ("train", "sample"):
        for stage in stages(out, kind):
            shutil.rmtree(stage)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "publish", rotting)
        answer = run()
    assert answer.code == 1
    assert "model.safetensors is wrong; check the disk" in answer.err
    ok(run())


def test_verify_names_what_is_damaged_and_discards_it_if_asked_to(
    run: Callable[..., Answer], out: Path
) -> None:
    before = products(out)
    for path in (out, out / "store", out / "toy/latest", out / "toy/latest/run.json"):
        assert ok(fw("verify", path)).out == f"{path}: every product is as it was stored\n"
    train, sample = stages(out, "train")[0], stages(out, "sample")[0]
    flip(train / "model.safetensors")
    (sample / "info.json").unlink()
    for path in (out, out / "store", out / "toy/latest"):
        answer = fw("verify", path)
        assert answer.code == 1
        assert f"{train.name}: the checksum of model.safetensors is wrong\n" in answer.out
        assert f"{sample.name}: info.json is missing\n" in answer.out
        assert "2 damaged products; discard them with --discard" in answer.out
        assert train.exists()
    assert fw("verify", out, "--discard").code == 1
    assert not train.exists()
    assert not sample.exists()
    ok(run())
    assert products(out) == before
    ok(fw("verify", out))


def test_verify_refuses_what_is_no_store_and_no_run(tmp_path: Path) -> None:
    answer = fw("verify", tmp_path)
    assert answer.code == 2
    assert f"{tmp_path} is neither a runs folder" in answer.err


def test_verify_reads_of_a_run_what_it_is_made_of_and_nothing_else(
    run: Callable[..., Answer], out: Path
) -> None:
    ok(run("--set", "train.steps=3"))
    latest = (out / "toy/latest").resolve()
    [first] = [path for path in (out / "toy").glob("seed*") if path != latest]
    for run_folder, other in ((first, latest), (latest, first)):
        with counted(out / "store") as own:
            ok(fw("verify", run_folder))
        with counted(out / "store") as others:
            ok(fw("verify", other))
        models = {name for name in own if name.endswith("model.safetensors")}
        assert models
        assert not models & others.keys()
        assert all(count == 1 for name, count in own.items() if name.endswith(".safetensors"))


@pytest.mark.parametrize("command", ["sample", "heatmap"])
def test_commands_that_read_a_damaged_model_refuse_and_say_what_to_do(
    run: Callable[..., Answer], out: Path, tmp_path: Path, command: str
) -> None:
    for trained in stages(out, "train"):
        flip(trained / "model.safetensors")
    answer = fw(command, out / "toy/latest", "--arm", "plain", "-o", tmp_path / "a.png", "-n", 20)
    assert answer.code == 2
    assert "is damaged in the store, the checksum of model.safetensors is wrong" in answer.err
    assert f"fw verify {out.resolve()}/store --discard" in answer.err
    assert fw("verify", out / "store", "--discard").code == 1
    ok(run())
