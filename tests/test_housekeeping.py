"""`fw store`, `fw status` and the estimates of `--dry-run`, on one small finished run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from PIL import Image
from sites import fw

from fw.core.commands import store as housekeeping
from fw.core.commands.estimate import estimates, flat, together
from fw.core.commands.status import status
from fw.core.commands.uses import run_folders
from fw.core.execution.progress import NAME, Noting, Reached, Speed, note, noted
from fw.core.files.layout import MANIFEST
from fw.core.files.sealed import SEAL
from fw.core.machine.processes import Process
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.loading import load
from fw.core.run.record import describe, run_folder
from fw.core.stages.base import Stage
from fw.core.stages.train import TrainDenoiser
from fw.core.store.at_work import at_work, notes
from fw.core.store.store import INPUTS, LEASES, Store

TINY = Path(__file__).parent / "tiny.yaml"
CHANGES = (
    "tracker=null",
    "train={steps: 6, batch: 32, warmup: 5}",
    "samples.seeds=2",
    "arms={unconditional: {annotator: null}}",
)
PLAIN = [word for change in CHANGES for word in ("--set", change)]
TWICE = ("--set", "repeats=2")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that share their encoder and their first training."""
    out = tmp_path_factory.mktemp("finished")
    for more in ((), TWICE):
        ended = fw("run", TINY, *PLAIN, *more, "--out", out, "--jobs", "1")
        assert ended.code == 0, ended.err
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    shutil.copytree(finished, tmp_path / "runs", symlinks=True)
    return tmp_path / "runs"


def planned(*changes: str) -> Plan:
    return plan(load(TINY, [*CHANGES, *changes]))


def size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def remove_run(out: Path, repeats: int) -> None:
    """Delete the folder of the run with so many trainings."""
    for folder in run_folders(out):
        run = json.loads((folder / "run.json").read_text())
        if run["repeats"] == repeats:
            shutil.rmtree(folder)


def test_the_room_is_said_by_run_and_kind_and_what_is_shared_once(out: Path) -> None:
    facts = json.loads(fw("store", out, "--json").out)
    store = Store(out / "store")
    once, twice = (set(planned(*each).stages) for each in ((), ("repeats=2",)))
    assert once < twice == store.stages()
    shared = sum(size(store.path(stage)) for stage in once)
    own = sorted((run["own"], run["shared"]) for run in facts["runs"])
    assert own == [(0, shared), (sum(size(store.path(stage)) for stage in twice - once), shared)]
    assert facts["shared"] == shared
    assert sum(kind["bytes"] for kind in facts["kinds"].values()) == shared + own[1][0]
    assert facts["bytes"] == size(out)
    assert facts["orphans"] == facts["unfinished"] == facts["damaged"] == {}
    text = fw("store", out).out
    assert "counted once" in text
    assert all(run["run"] in text for run in facts["runs"])


def test_what_another_run_uses_stays_and_the_rest_goes_when_it_is_confirmed(out: Path) -> None:
    store = Store(out / "store")
    assert "every product is used" in fw("store", out, "--prune").out
    remove_run(out, repeats=2)
    once, twice = (set(planned(*each).stages) for each in ((), ("repeats=2",)))
    store.partial("train-0000000000000000").mkdir()
    unasked = fw("store", out, "--prune")
    assert (unasked.code, store.stages()) == (2, twice)
    assert "--yes" in unasked.err
    done = fw("store", out, "--prune", "--yes")
    assert done.code == 0, done.err
    assert store.stages() == once
    assert not store.partial("train-0000000000000000").exists()
    assert f"{len(twice - once) + 1} removed" in done.out
    again = fw("run", TINY, *PLAIN, "--dry-run", "--out", out)
    assert "to do" not in again.out


def test_a_run_that_begins_meanwhile_keeps_what_it_uses(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At either moment: before a product is put aside, and just after."""
    store, found = Store(out / "store"), planned("repeats=2")
    remove_run(out, repeats=2)
    for late in (False, True):
        removal, before = housekeeping.removable(out), store.stages()
        assert removal.sizes
        rename = Path.rename
        with at_work(store, "tiny", found, found) if not late else monkeypatch.context() as patch:
            begun: list[Any] = []

            def begin(path: Path, target: Path, begun: Any = begun, rename: Any = rename) -> Path:
                if not begun:
                    begun.append(at_work(store, "tiny", found, found))
                    begun[0].__enter__()
                return rename(path, target)

            if late:
                patch.setattr(Path, "rename", begin)  # type: ignore[union-attr]
            kept = dict(housekeeping.remove(removal))
            for each in begun:
                each.__exit__(None, None, None)
        assert all("has begun to use it" in reason for reason in kept.values())
        assert store.stages() == before
    assert list(notes(store)) == []


def test_what_a_removal_that_was_killed_has_left_goes_with_the_next(out: Path) -> None:
    store = Store(out / "store")
    stage = planned().arms["unconditional"].train
    aside = store.root / f"{stage}.removed"
    shutil.copytree(store.path(stage), aside)
    removal = housekeeping.removable(out)
    assert list(removal.sizes) == [aside.name]
    with store.lease(stage):  # as of another removal that has just put it aside
        assert list(dict(housekeeping.remove(removal)).values()) != [""]
        assert aside.exists()
    before = store.stages()
    assert "1 removed" in fw("store", out, "--prune", "--yes").out
    assert not aside.exists()
    assert store.stages() == before


def test_a_run_that_was_moved_away_and_left_a_link_is_one_and_latest_is_none(out: Path) -> None:
    before = run_folders(out)
    moved = before[0].rename(out.parent / "moved")
    before[0].symlink_to(moved)
    assert run_folders(out) == before
    assert "every product is used" in fw("store", out, "--prune").out


def test_nothing_is_removed_of_a_store_that_runs_elsewhere_may_use(out: Path) -> None:
    """Several runs folders may have a link to one store."""
    remove_run(out, repeats=2)
    elsewhere = out.parent / "large" / "store"
    elsewhere.parent.mkdir()
    (out / "store").rename(elsewhere)
    (out / "store").symlink_to(elsewhere)
    before = Store(elsewhere).stages()
    for folder, why in ((out, "is a link to"), (elsewhere, "no run is in it")):
        refused = fw("store", folder, "--prune", "--yes")
        assert refused.code == 2
        assert why in refused.err
    assert Store(elsewhere).stages() == before
    assert "orphans" in fw("store", out).out


def test_nothing_is_removed_where_it_is_not_known_what_a_run_uses(out: Path) -> None:
    for folder in run_folders(out):
        text = (folder / "recipe.resolved.yaml").read_text()
        (folder / "recipe.resolved.yaml").write_text(text.replace("name: unet", "name: mine"))
    before = Store(out / "store").stages()
    refused = fw("store", out, "--prune", "--yes")
    assert refused.code == 2
    assert "mine" in refused.err
    assert Store(out / "store").stages() == before
    assert "not known" in fw("store", out).out


def test_nothing_is_removed_where_the_data_of_an_unfinished_run_are_not_at_hand(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without them its keys are others. A relative path leads to them from one folder alone."""
    for number, split in enumerate(("train", "test")):
        folder = tmp_path / "here" / "pictures" / split
        folder.mkdir(parents=True)
        Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / "one.png")
    monkeypatch.chdir(tmp_path / "here")
    pictures = "dataset={name: image_folder, root: pictures, size: 16}"
    recipe = load(TINY, [*CHANGES, pictures])
    describe(recipe, [], run_folder(recipe, [], out))
    store, stage = Store(out / "store"), planned(pictures).arms["unconditional"].train
    store.path(stage).mkdir()
    assert "every product is used" in fw("store", out, "--prune").out
    monkeypatch.chdir(tmp_path)
    before = store.stages()
    refused = fw("store", out, "--prune", "--yes")
    assert (refused.code, store.stages()) == (2, before)
    assert "pictures" in refused.err
    assert "--prune" not in fw("store", out).out


def test_nothing_is_removed_where_a_run_has_other_keys_today_and_names_some_of_them_alone(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainDenoiser, "version", TrainDenoiser.version + 1)
    remove_run(out, repeats=1)
    refused = fw("store", out, "--prune", "--yes")
    assert refused.code == 2
    assert "run its recipe again, or delete its folder" in refused.err


def test_a_damaged_product_and_work_that_was_stopped_are_named(out: Path) -> None:
    store = Store(out / "store")
    stage = planned().arms["unconditional"].train
    shutil.copytree(store.path(stage), store.partial(stage))
    note(Reached("train unet", "train", 20, 60, 4.0), store.partial(stage))
    (store.path(stage) / "model.safetensors").write_bytes(b"cut")
    text = fw("store", out).out
    assert f"damaged: {stage}: model.safetensors has 3 bytes" in text
    assert f"unfinished: {stage} (train unet: 20 of 60, 4/s, 10 s left)" in text
    assert "continues it" in text


def test_a_store_of_an_earlier_fw_is_brought_up_to_date_and_another_needs_nothing(
    out: Path,
) -> None:
    assert "nothing to do" in fw("store", out, "--migrate").out
    store, stage = Store(out / "store"), planned().arms["unconditional"].sample
    manifest = store.manifest(stage)
    old = {key: value for key, value in manifest.items() if key not in (INPUTS, SEAL)}
    (store.path(stage) / MANIFEST).write_text(json.dumps(old))
    locks = store.root / LEASES
    locks.mkdir(exist_ok=True)
    (locks / f"{stage}.lock").touch()
    with FileLock(locks / "held.lock"):
        first = fw("store", out, "--migrate").out
        assert "1 of 2 brought up to date" in first
        assert "in use by another process" in first
    assert store.manifest(stage) == manifest
    fw("store", out, "--migrate")
    assert not list(locks.glob("*.lock"))
    assert "nothing to do" in fw("store", out, "--migrate").out


def test_status_says_what_runs_is_queued_has_died_and_was_stopped(out: Path) -> None:
    assert "nothing is running" in fw("status", out).out
    store, found = Store(out / "store"), planned("train.steps=61")
    arm = found.arms["unconditional"]
    train, drawn = (found.stages[each] for each in (arm.train, arm.sample))
    with at_work(store, "tiny", found, found), store.lease(train.id):
        folder = store.begin(train.id)
        note(Reached(train.title, "train", 21, 61, 4.0), folder)
        (run,) = status(out).runs
        states = {each.stage: each.state for each in run.stages}
        assert (states[train.id], states[drawn.id]) == ("running", "queued")
        assert set(states.values()) == {"running", "queued", "done"}
        text = fw("status", out).out
        assert f"running  {train.title}: 21 of 61, 4/s, 10 s left (process {os.getpid()} on" in text
        assert "1 running" in text
        facts = json.loads(fw("status", out, "--json").out)
        (told,) = [each for each in facts["runs"][0]["stages"] if each["stage"] == train.id]
        assert (told["done"], told["total"], told["seconds_left"]) == (21, 61, 10)
    (left,) = status(out).others
    assert (left.stage, left.title, left.state) == (train.id, train.title, "stopped")


def test_status_knows_a_process_that_died_and_one_that_shows_no_life(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, found = Store(out / "store"), planned("train.steps=61")
    stage = found.arms["unconditional"].train
    program = f"""
import os
from pathlib import Path
from fw.core.store.store import Store
from fw.core.stages.train import TrainDenoiser
from fw.core.store.at_work import at_work
from fw.core.plan.graph import Plan
store = Store(Path({str(store.root)!r}))
with at_work(store, "gone", Plan(), Plan()), store.lease({stage!r}):
    store.begin({stage!r})
    os._exit(9)
"""
    subprocess.run([sys.executable, "-c", program], check=False)
    (run,), (left,) = status(out).runs, status(out).others
    assert (run.state, left.state) == ("ended", "stalled")
    assert "has died" in str(run)
    assert "has died" in str(left)
    with at_work(store, "tiny", found, found):
        assert [each.recipe for each in notes(store)] == ["tiny"]  # the other is forgotten
        monkeypatch.setattr(Process, "here", property(lambda self: False))
        for lease in (store.root / LEASES).rglob("*.lease"):
            os.utime(lease, (time.time() - 7200,) * 2)
        (run,) = status(out).runs
        (mine,) = [each for each in run.stages if each.stage == stage]
        assert "has shown no life for 2 h" in str(mine)
        assert mine.state == "stalled"


def test_watching_ends_when_nobody_reads_it_any_more(out: Path) -> None:
    words = [sys.executable, "-m", "fw.core", "status", str(out), "--watch"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        try:
            assert b"nothing is running" in watching.stdout.readline()
            watching.stdout.close()
            assert watching.wait(timeout=60) == 0
        finally:
            watching.kill()


def test_progress_is_written_beside_the_work_and_in_no_product(tmp_path: Path) -> None:
    class Deaf:
        def progress(self, stage: str, label: str, done: int, total: int) -> None: ...
        def metrics(self, stage: str, records: Any) -> None: ...
        def told(self, stage: str, text: str) -> None: ...

    store = Store(tmp_path)
    stage = "train-0123456789abcdef"
    folder = store.begin(stage)
    now = iter([0.0, 2.0, 4.0])
    noting = Noting(Deaf(), folder, Speed("train", clock=lambda: next(now)))
    noting.progress(stage, "train", 100, 500)
    assert noted(folder) == Reached("train", "train", 100, 500, None)
    noting._written = None  # a second later
    noting.progress(stage, "train", 120, 500)
    reached = noted(folder)
    assert reached == Reached("train", "train", 120, 500, 10.0)
    assert str(reached) == "120 of 500, 10/s, 38 s left"
    (folder / "model").write_bytes(b"weights")
    store.publish(stage, {}, {})
    assert {path.name for path in store.path(stage).iterdir()} == {"model", MANIFEST}
    (folder / NAME).parent.mkdir()
    (folder / NAME).write_text('{"title": 1}')
    assert noted(folder) is None


def manifest_of(store: Store, stage: str, change: Mapping[str, Any]) -> None:
    """A finished stage in a store, of this key but for some of its settings."""
    payload, name = change["payload"], change["name"]
    store.path(name).mkdir(parents=True)
    facts = {"stage": name, "payload": payload, **change["facts"]}
    (store.path(name) / MANIFEST).write_text(json.dumps(facts))


def test_an_estimate_is_in_proportion_to_steps_and_images_of_the_nearest_of_its_kind(
    tmp_path: Path,
) -> None:
    store, found = Store(tmp_path), planned("train.steps=60")
    arm = found.arms["unconditional"]
    train, drawn = (found.stages[each] for each in (arm.train, arm.sample))
    made: list[tuple[Stage, dict[str, Any], str, float, int]] = [
        (train, {"train.steps": 120}, "cpu", 12.0, 1000),
        (train, {"train.steps": 30}, "cpu", 5.0, 1000),
        (train, {"train.steps": 60, "train.batch": 64}, "cpu", 99.0, 99),
        (train, {"train.steps": 60, "model.name": "dit"}, "cpu", 99.0, 99),
        (train, {"train.steps": 60}, "cuda:0", 0.5, 1000),
        (drawn, {"samples.count": 80, "sampler.steps": 6}, "cpu", 8.0, 800),
    ]
    for number, (stage, changes, device, seconds, size_) in enumerate(made):
        payload = json.loads(json.dumps(stage.payload))
        for name, value in changes.items():
            section, _, key = name.partition(".")
            payload[section][key] = value
        facts = {
            "device": device,
            "seconds": seconds,
            "files": {"x": {"bytes": size_, "sha256": ""}},
        }
        name = f"{stage.kind}-{number:016x}"
        manifest_of(store, name, {"payload": payload, "name": name, "facts": facts})
    known = estimates(found, list(found.stages), store, "cpu", {})
    trained, sampled = known[train.id], known[drawn.id]
    assert trained is not None
    assert sampled is not None
    assert (trained.seconds, trained.size) == ((6.0 + 10.0) / 2, 1000)
    assert trained.why == "from 2 earlier train stages"
    assert (sampled.seconds, sampled.size) == (8.0 / 4, 400)
    assert all(known[stage] is None for stage in found.stages if stage not in (train.id, drawn.id))
    (cuda,) = estimates(found, [train.id], store, "cuda", {}).values()
    assert cuda is not None
    assert cuda.seconds == 0.5
    other = planned("train.steps=60", "train.batch=16")
    (about,) = estimates(other, [other.arms["unconditional"].train], store, "cpu", {}).values()
    assert about is not None
    assert about.differing == ("train",)
    said = fw("run", TINY, *PLAIN, "--dry-run", "--out", tmp_path / "none").out
    assert "is not known" in said
    assert dict(flat({"a": {"seed": 1}, "seed": 2, "b": [1]})) == {"b": [1]}


def test_stages_side_by_side_take_as_long_as_their_longest_chain() -> None:
    found = planned()
    seconds = dict.fromkeys(found.stages, 1.0)
    assert together(found, seconds, 1) == len(seconds)
    chain = {each.id: 0 for each in found.stages.values()}
    for stage in found.stages.values():
        chain[stage.id] = 1 + max((chain[source] for source in stage.inputs.values()), default=0)
    assert together(found, seconds, 100) == max(chain.values())


def test_a_dry_run_says_what_it_will_take_and_from_what(out: Path) -> None:
    said = fw("run", TINY, *PLAIN, "--set", "train.steps=120", "--dry-run", "--out", out).out
    assert "from 2 earlier train stages" in said
    assert "jobs side by side" in said or "one after the other" in said
