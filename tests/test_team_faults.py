"""A team draws the images that one process draws. One that loses a member begins again and ends
with the same bits; what a member raises, and that it hangs, is said in a sentence; nothing is left
of a team that was stopped."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import sites
import team_faults
import toys

from fw.core.execution import together
from fw.core.execution.executor import Outcome
from fw.core.execution.local import run_here
from fw.core.execution.place import Place
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan
from fw.core.recipe.loading import validate
from fw.core.recipe.source import parse
from fw.core.store.store import Store
from fw.registry import Provider

RECIPE = f"""\
{toys.RECIPE.partition("arms:")[0]}arms:
  plain: {{annotator: null}}
"""


class Heard:
    """A listener that remembers what is said, and calls back at progress."""

    def __init__(self, at: Callable[[str, int], None] = lambda label, done: None):
        self.said: list[str] = []
        self.at = at

    def progress(self, stage: str, label: str, done: int, total: int) -> None:
        self.at(label, done)

    def metrics(self, stage: str, records: Any) -> None:
        pass

    def told(self, stage: str, text: str) -> None:
        self.said.append(text)

    def waiting(self, stage: str, holder: str) -> None:
        pass

    def started(self, stage: str, node: str = "") -> None:
        pass

    def done(self, stage: str, already: bool = False) -> None:
        pass

    def failed(self, stage: str, reason: str) -> None:
        pass


def doomed(*sets: str) -> Plan:
    source = parse(RECIPE.replace("model: linear", "model: doomed"), "r.yaml")
    source.set(["samples.count=2500", "samples.seeds=1", "sampler.steps=3", "train.steps=60"])
    source.set(sets)
    registry = toys.registry()
    registry.add(Provider("fates"), [team_faults.Doomed])
    return plan(validate(source, registry))


def executed(
    found: Plan,
    root: Path,
    heard: Heard,
    ranks: int = 2,
    stopping: Callable[[], bool] = lambda: False,
    patience: float = 300.0,
    finished: Iterable[str] = (),
) -> Outcome:
    Store(root).create()
    place = Place(root, "cpu", 1, checkpoint_seconds=0, ranks=ranks, patience=patience)
    return run_here(found, finished, place, heard, stopping)


@pytest.fixture
def fates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    folder = tmp_path / "fates"
    folder.mkdir()
    monkeypatch.setenv(team_faults.PLAN, str(folder))

    def planned(*names: str) -> None:
        for name in names:
            (folder / name).touch()

    return planned


def digests(found: Plan, root: Path) -> dict[str, str]:
    return {stage: Store(root).digest(stage) for stage in found.stages}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The products of a team to which nothing happens."""
    root = tmp_path_factory.mktemp("straight")
    assert executed(doomed(), root, Heard()).failed == {}
    return digests(doomed(), root)


def test_whichever_rank_is_killed_the_team_begins_again_and_ends_with_the_same_bits(
    straight: dict[str, str], tmp_path: Path, fates: Callable[..., None]
) -> None:
    found = doomed()
    fates("0 training 2 kill", "1 training 3 kill", "1 sampling 2 kill", "0 sampling 2 kill")
    heard = Heard()
    outcome = executed(found, tmp_path / "killed", heard)
    assert outcome.failed == {}
    hint = "(was there too little memory?); its 2 ranks begin again"
    assert set(heard.said) == {f"rank {rank} of 2 died {hint}" for rank in (0, 1)}
    assert len(heard.said) in (3, 4)  # two may die at once in sampling
    assert list((tmp_path / "fates").iterdir()) == []
    assert digests(found, tmp_path / "killed") == straight


def test_images_and_their_features_are_the_same_to_the_bit_however_many_make_them(
    tmp_path: Path,
) -> None:
    found = doomed()
    assert executed(found, tmp_path / "alone", Heard(), ranks=1).failed == {}
    made = {stage.id for stage in found.stages.values() if stage.kind in ("sample", "features")}
    for stage in found.stages.keys() - made:
        shutil.copytree(tmp_path / "alone" / stage, tmp_path / "three" / stage)
    outcome = executed(
        found, tmp_path / "three", Heard(), ranks=3, finished=found.stages.keys() - made
    )
    assert outcome.failed == {}
    assert {Store(tmp_path / "three").manifest(stage)["ranks"] for stage in made} == {3}
    assert digests(found, tmp_path / "three") == digests(found, tmp_path / "alone")


def test_a_team_that_dies_again_and_again_ends_the_stage_and_names_the_rank(
    tmp_path: Path, fates: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "RESTARTS", 1)
    fates("1 training 1 kill", "1 training 2 kill")
    outcome = executed(doomed(), tmp_path / "store", Heard())
    (reason,) = outcome.failed.values()
    assert reason == "rank 1 of 2 died (was there too little memory?), 2 times"


@pytest.mark.parametrize(
    ("fate", "reason"),
    [
        ("1 training 2 raise", "rank 1 of 2: ValueError: the wheel came off (traceback in "),
        ("0 sampling 1 raise", "rank 0 of 2: ValueError: the wheel came off (traceback in "),
        ("1 training 2 memory", "rank 1 of 2: "),
        (
            "1 training 2 hang",
            "rank 0 of 2: another rank did not answer within 30 seconds, or is gone",
        ),
    ],
)
def test_what_a_member_raises_and_that_it_hangs_is_said_with_its_rank(
    fate: str, reason: str, tmp_path: Path, fates: Callable[..., None]
) -> None:
    fates(fate)
    patience = 30.0 if "hang" in fate else 300.0
    outcome = executed(doomed(), tmp_path / "store", Heard(), patience=patience)
    (text,) = outcome.failed.values()
    assert text.startswith(reason)
    assert len(text.splitlines()) == 1
    if "memory" in fate:
        assert "memory" in text
    assert descendants() == []


def descendants() -> list[str]:
    """The command lines of processes that this one has started for teams."""
    lines = [Path(f"/proc/{each}/cmdline").read_bytes() for each in children(os.getpid())]
    return [line.decode() for line in lines if b"spawn_main" in line]


def test_a_team_that_is_asked_to_stop_keeps_its_steps_and_leaves_no_process(
    straight: dict[str, str], tmp_path: Path
) -> None:
    asked = threading.Event()
    found = doomed()
    heard = Heard(lambda label, done: asked.set() if (label, done) == ("train", 1) else None)
    stopped = executed(found, tmp_path / "stopped", heard, stopping=asked.is_set)
    assert stopped.stopped
    assert descendants() == []
    asked.clear()
    heard.at = lambda label, done: None
    assert executed(found, tmp_path / "stopped", heard).failed == {}
    assert digests(found, tmp_path / "stopped") == straight
    assert heard.said == []


def test_no_rank_outlives_a_run_that_is_killed(tmp_path: Path) -> None:
    recipe = tmp_path / "toy.yaml"
    recipe.write_text(RECIPE.replace("steps: 4", "steps: 10000000"))
    with sites.site(tmp_path / "site") as folder:
        command = [sys.executable, "-m", "fw.core", "run", str(recipe), "--out", str(tmp_path)]
        run = subprocess.Popen(
            [*command, "--ranks", "2", "--jobs", "1"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        checkpoint = "store/train-*.partial/log.jsonl"
        await_(lambda: list(tmp_path.glob(checkpoint)) != [])
        ranks = children(run.pid)
        assert len(ranks) >= 2
        run.send_signal(signal.SIGKILL)
        run.wait()
        await_(lambda: not any(alive(rank) for rank in ranks))


def await_(done: Callable[[], bool]) -> None:
    limit = time.monotonic() + 120
    while not done():
        assert time.monotonic() < limit
        time.sleep(0.1)


def children(process: int) -> list[int]:
    """The processes that this one has started and that still run."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = status.read_text(encoding="utf-8").rpartition(")")[2].split()
            if int(fields[1]) == process and fields[0] != "Z":
                found.append(int(status.parent.name))
    return found


def alive(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
