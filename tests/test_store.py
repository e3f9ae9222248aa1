"""The store: a stage is there whole or not at all, rot is noticed and named, and runs take
turns."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fw.core.errors import Damaged, FwError, Held, OutOfOrder
from fw.core.files.layout import MANIFEST
from fw.core.store.store import LARGE, LEASES, Store

STAGE = "train-0123456789abcdef"
FILES = {
    "model.safetensors": b"weights" * 100,
    "log.jsonl": b"{}\n",
    "deep/er.bin": b"\x00\x01",
    "empty": b"",
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "a" / "store")
    made.create()
    return made


def work(store: Store, files: dict[str, bytes] = FILES) -> Path:
    """Do the stage, up to publishing it."""
    folder = store.begin(STAGE)
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def published(store: Store) -> Path:
    work(store)
    store.publish(STAGE, {"seed": 0}, {"seconds": 1.5})
    return store.path(STAGE)


def test_a_published_stage_is_done_with_all_its_files_and_facts(store: Store) -> None:
    folder = published(store)
    assert store.status(STAGE) == ("done", "")
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert not store.partial(STAGE).exists()
    manifest = store.manifest(STAGE)
    assert (manifest["stage"], manifest["payload"], manifest["seconds"]) == (
        STAGE,
        {"seed": 0},
        1.5,
    )
    assert {name: entry["bytes"] for name, entry in manifest["files"].items()} == {
        name: len(content) for name, content in FILES.items()
    }


def test_what_is_not_published_is_absent_and_the_next_try_finds_it_as_it_was_left(
    store: Store,
) -> None:
    folder = work(store)
    assert store.status(STAGE) == ("absent", "")
    assert store.begin(STAGE) == folder
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_files_for_resuming_go_when_the_stage_is_published(store: Store) -> None:
    work(
        store, {**FILES, "train.checkpoint": b"x", "train.writing": b"x", "deep/a.checkpoint": b"x"}
    )
    store.publish(STAGE, {}, {})
    left = {
        path.relative_to(store.path(STAGE)).as_posix()
        for path in store.path(STAGE).rglob("*")
        if path.is_file()
    }
    assert left == {*FILES, MANIFEST}
    assert store.manifest(STAGE)["files"].keys() == FILES.keys()
    assert store.status(STAGE).state == "done"


KILLED = """
import os, signal, sys
from pathlib import Path
from fw.core.store import store as module

rename = Path.replace

def die(self, target):
    if self.suffix == ".partial":
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)

Path.replace = die
module.Store(Path(sys.argv[1])).publish(sys.argv[2], {}, {})
"""


def test_a_kill_just_before_the_rename_leaves_work_that_the_next_try_publishes(
    store: Store,
) -> None:
    work(store, {**FILES, "train.checkpoint": b"x"})
    killed = subprocess.run([sys.executable, "-c", KILLED, str(store.root), STAGE], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert store.status(STAGE).state == "absent"
    assert (store.partial(STAGE) / "train.checkpoint").exists()
    assert (store.partial(STAGE) / MANIFEST).exists()
    store.publish(STAGE, {}, {})
    assert store.status(STAGE).state == "done"
    assert store.manifest(STAGE)["files"].keys() == FILES.keys()


@settings(max_examples=30)
@given(name=st.sampled_from([name for name, content in FILES.items() if content]), data=st.data())
def test_one_flipped_bit_in_any_file_is_noticed_and_the_file_named(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    file = published(store) / name
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    assert store.status(STAGE) == ("done", "")
    assert store.verify(STAGE) == ("corrupted", f"the checksum of {name} is wrong")
    reportable = "done" if name.endswith(LARGE) else "corrupted"
    assert store.reportable(STAGE).state == reportable
    with pytest.raises(Damaged, match=f"the checksum of {name} is wrong"):
        store.product(STAGE)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "deep/er.bin").unlink(), "deep/er.bin is missing"),
        (lambda folder: (folder / "empty").write_bytes(b"x"), "empty has 1 bytes and not 0"),
        (lambda folder: (folder / MANIFEST).unlink(), f"its {MANIFEST} cannot be read"),
    ],
)
def test_damage_is_noticed_with_its_reason_and_the_stage_can_be_done_again(
    store: Store, damage: Callable[[Path], object], reason: str
) -> None:
    damage(published(store))
    assert store.status(STAGE) == ("corrupted", reason)
    store.discard(STAGE)
    assert store.status(STAGE).state == "absent"
    published(store)
    assert store.status(STAGE).state == "done"


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "{",
        "[]",
        "3",
        "{}",
        '{"files": 3}',
        '{"files": {"a": 3}}',
        '{"files": {"a": {}}}',
        "\udcff",
    ],
)
def test_a_manifest_that_is_none_is_noticed(store: Store, manifest: str) -> None:
    (published(store) / MANIFEST).write_text(manifest, errors="surrogateescape")
    assert store.status(STAGE) == ("corrupted", f"its {MANIFEST} cannot be read")


def test_publishing_over_a_finished_stage_fails_and_leaves_it_whole(store: Store) -> None:
    published(store)
    work(store, {"other": b"other"})
    with pytest.raises(OSError, match="not empty"):
        store.publish(STAGE, {}, {})
    assert store.status(STAGE).state == "done"
    assert store.manifest(STAGE)["files"].keys() == FILES.keys()


def test_making_the_store_twice_is_fine_and_leaves_nothing_behind(store: Store) -> None:
    store.create()
    assert list(store.root.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_one_sentence_that_says_what_to_do(
    tmp_path: Path,
) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    for root in (file, file / "store"):
        with pytest.raises(FwError) as caught:
            Store(root).create()
        assert str(caught.value).startswith(f"--out: {root}")
        assert caught.value.exit_code == 2


def hold(root: Path, connection: Connection) -> None:
    """Hold the stage's lease in a process of its own until told to let go."""
    with Store(root).lease(STAGE):
        connection.send("held")
        connection.recv()


def hold_elsewhere(store: Store) -> Connection:
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    multiprocessing.get_context("fork").Process(
        target=hold, args=(store.root, theirs), daemon=True
    ).start()
    assert ours.recv() == "held"
    return ours


def test_a_stage_that_another_process_is_at_is_not_waited_for_and_it_is_said_whose_it_is(
    store: Store,
) -> None:
    others = multiprocessing.active_children()  # of tests that ran in this process before
    connection = hold_elsewhere(store)
    (child,) = [each for each in multiprocessing.active_children() if each not in others]
    whose = f"process {child.pid} on {socket.gethostname()}"
    assert store.holder(STAGE) == whose
    with pytest.raises(Held, match=f"{whose} is at it"), store.lease(STAGE):
        raise AssertionError("it was not free")
    connection.send("let go")
    child.join()
    assert store.holder(STAGE) is None
    with store.lease(STAGE):
        pass


def test_a_free_stage_is_taken_and_again_after_it_was_let_go_and_nothing_is_left(
    store: Store,
) -> None:
    for _ in range(2):
        with store.lease(STAGE):
            assert not acquirable(store)
        assert acquirable(store)
    assert [*store.root.rglob("*")] == [store.root / LEASES]


def acquirable(store: Store) -> bool:
    try:
        with store.lease(STAGE):
            return True
    except Held:
        return False


def test_a_stage_is_let_go_when_the_work_raises_and_when_its_process_is_killed(
    store: Store,
) -> None:
    with pytest.raises(ValueError, match="broke"), store.lease(STAGE):
        raise ValueError("it broke")
    assert acquirable(store)
    others = multiprocessing.active_children()  # of tests that ran in this process before
    hold_elsewhere(store)
    (child,) = [each for each in multiprocessing.active_children() if each not in others]
    assert child.pid is not None
    assert not acquirable(store)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert acquirable(store)


def test_other_stages_can_be_taken_meanwhile(store: Store) -> None:
    holder = hold_elsewhere(store)
    with store.lease("train-other"):
        holder.send("let go")


def test_where_no_lease_can_be_written_one_sentence_says_so(store: Store) -> None:
    (store.root / LEASES).write_text("a file is in the way")
    with pytest.raises(OutOfOrder, match=f"{store.root / LEASES}.*: not a directory"):
        store.lease(STAGE).__enter__()
