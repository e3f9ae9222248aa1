"""What a stage keeps for a later try is used as it was kept, or made again: whatever bit of it
flips."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from operator import methodcaller
from pathlib import Path

import pytest
import toys
from test_executor import Heard, planned, products, settings

from fw.core.errors import Interrupted
from fw.core.execution.local import run_here
from fw.core.execution.stage import execute
from fw.core.files import unfinished
from fw.core.plan.graph import Plan
from fw.core.stages import sample as sampling
from fw.core.stages.base import Stage
from fw.core.store.store import Store


def flips(content: bytes, every: int) -> Iterator[bytes]:
    for place in range(0, 8 * len(content), every):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        yield bytes(damaged)


def test_a_file_is_intact_as_it_was_kept_and_with_no_bit_changed(tmp_path: Path) -> None:
    part = tmp_path / "part"
    assert not unfinished.intact(part)
    for content in (b"first", b"second"):
        unfinished.keep(part, methodcaller("write_bytes", content))
        assert part.read_bytes() == content
        assert unfinished.intact(part)
    for damaged in flips(b"second", every=1):
        part.write_bytes(damaged)
        assert not unfinished.intact(part)
    part.write_bytes(b"second")
    voucher = unfinished.voucher(part).read_bytes()
    for damaged in flips(voucher, every=7):
        unfinished.voucher(part).write_bytes(damaged)
        assert not unfinished.intact(part) or damaged.split(b"\n")[0] == voucher.split(b"\n")[0]
    unfinished.discard(part)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Plan, Stage]:
    """A plan of which all is done but a sampling of nine files, which was stopped behind the
    fourth."""
    monkeypatch.setattr(sampling, "SHARD", 2)
    found = planned("arms={plain: {annotator: null}}")
    assert not run_here(found, (), settings(tmp_path / "whole"), Heard(), lambda: False).failed
    stage = found.stages[found.arms["plain"].sample]
    shutil.copytree(tmp_path / "whole", tmp_path / "store")
    for path in (tmp_path / "store").glob("[se][av]*"):  # samples and their scores
        shutil.rmtree(path)
    asked = iter(range(100))
    with pytest.raises(Interrupted):
        execute(stage, settings(tmp_path / "store"), Heard(), lambda: next(asked) >= 4)
    return found, stage


def test_a_damaged_file_of_stopped_work_is_made_again_aloud(
    cut_off: tuple[Plan, Stage], tmp_path: Path
) -> None:
    found, stage = cut_off
    left = sorted(path.name for path in Store(tmp_path / "store").partial(stage.id).iterdir())
    assert sum(name.endswith(".safetensors") for name in left) == 4
    assert {"info.json", "info.json.sha256", "inputs.sha256"} < set(left)
    for name in left:
        shutil.copytree(tmp_path / "store", tmp_path / "copy")
        file = Store(tmp_path / "copy").partial(stage.id) / name
        vouching = name.endswith(
            unfinished.VOUCHER
        )  # for this file and for the one before, which may be equal
        file.write_bytes(b"?" if vouching else next(flips(file.read_bytes(), every=1)))
        heard = Heard()
        assert not run_here(found, (), settings(tmp_path / "copy"), heard, lambda: False).failed
        assert products(tmp_path / "copy") == products(tmp_path / "whole")
        whose = name.removesuffix(unfinished.VOUCHER)
        said = f"{whose} was damaged since it was written, and is made again"
        if whose == "inputs":
            said = "what was left of an earlier try is not of these inputs; beginning again"
        assert heard.said == ([] if name == "stage.progress" else [said])
        shutil.rmtree(tmp_path / "copy")


def test_a_file_that_is_damaged_while_its_stage_is_at_work_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "SHARD", 2)
    found, sample, drawn = planned("arms={plain: {annotator: null}}"), toys.Euler.sample, []

    def damaging(*args: object) -> object:
        drawn.append(1)
        if len(drawn) == 3:
            file = next(tmp_path.glob("sample-*.partial/samples-000-0000000.safetensors"))
            *content, last = file.read_bytes()
            file.write_bytes(bytes([*content, last ^ 1]))
        return sample(*args)

    monkeypatch.setattr(toys.Euler, "sample", damaging)
    outcome = run_here(found, (), settings(tmp_path), Heard(), lambda: False)
    assert list(outcome.failed) == [found.arms["plain"].sample]
    assert (
        "samples-000-0000000.safetensors was damaged" in outcome.failed[found.arms["plain"].sample]
    )
    heard = Heard()
    assert not run_here(found, (), settings(tmp_path), heard, lambda: False).failed
    assert heard.said == [
        "samples-000-0000000.safetensors was damaged since it was written, and is made again"
    ]
