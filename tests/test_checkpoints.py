"""Checkpoints are written beside the steps, cost at most a hundredth of the time, and lose nothing
but steps."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from test_job import TOTAL, Cut, crash_at, fit, stop_at
from torch import Tensor, nn

from fw.core.files import unfinished
from fw.core.files.checkpoints import SHARE, Beside, Pace, copied
from fw.core.job import Job

OFTEN = 1e-9
"""Seconds between checkpoints: as often as their cost allows."""


class Clock:
    """A clock that tests turn."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("cost", "step", "saves"), [(0.01, 1.0, 180), (7.0, 1.0, 6), (7.0, 0.25, 6), (60.0, 1.0, 1)]
)
def test_checkpoints_cost_at_most_a_hundredth_of_the_time_and_the_first_comes_in_time(
    cost: float, step: float, saves: int
) -> None:
    clock = Clock()
    pace, taken = Pace(20.0, clock), []
    while clock.now < 3600:
        clock.now += step
        if pace.due:
            taken.append(clock.now)
            pace.saved()
            pace.costs(cost / 2)  # the copy
            clock.now += cost / 2
            pace.costs(cost / 2)  # what the thread took
    assert taken[0] == 20
    assert len(taken) == saves
    gaps = [later - earlier for earlier, later in itertools.pairwise(taken)]
    assert all(gap >= max(20.0, cost / SHARE) for gap in gaps)


def test_the_log_is_written_in_time_though_checkpoints_are_rare() -> None:
    clock = Clock()
    pace, written = Pace(20.0, clock), []
    clock.now = 20.0
    pace.saved()
    pace.costs(100.0)
    while clock.now < 119:
        clock.now += 1
        assert not pace.due
        if pace.log_due:
            written.append(clock.now)
            pace.wrote_log()
    assert written == [40, 60, 80, 100]


def held_up(gate: threading.Event) -> mock._patch[object]:
    """torch.save waits for the gate where it is called beside the steps."""
    save = torch.save

    def slow(payload: object, path: Path) -> None:
        if threading.current_thread() is not threading.main_thread():
            gate.wait(60)
        save(payload, path)

    return mock.patch.object(torch, "save", slow)


def test_steps_go_on_while_a_checkpoint_is_written_and_do_not_change_it(tmp_path: Path) -> None:
    gate, checkpoints = threading.Event(), list[int]()
    for name in ("straight", "slow"):
        (tmp_path / name).mkdir()
    straight = fit(Job(tmp_path / "straight", seed=3))

    def at(step: int) -> None:
        if step == 7:
            gate.set()
        elif step == 8:
            wait_for(tmp_path / "slow/train.checkpoint")
            payload = torch.load(tmp_path / "slow/train.checkpoint", weights_only=True)
            checkpoints.append(payload["step"])
            raise Cut

    with held_up(gate), pytest.raises(Cut):
        fit(Job(tmp_path / "slow", seed=3, checkpoint_seconds=OFTEN), at)
    assert checkpoints == [1]  # the state after the first step, written during the eighth
    assert fit(Job(tmp_path / "slow", seed=3)) == straight


@pytest.mark.parametrize("seconds", [0.0, OFTEN])
def test_files_made_beside_the_steps_are_of_their_step_and_whole_before_a_later_checkpoint(
    tmp_path: Path, seconds: float
) -> None:
    def slow(tensors: Mapping[str, Tensor], path: Path) -> None:
        threading.Event().wait(0.05)
        path.write_text(str(tensors["weight"].item()), encoding="utf-8")

    save, lacking = torch.save, list[str]()

    def checked(payload: dict[str, Any], path: Path) -> None:
        files = [f"kept-{step}" for step in range(payload["step"])]
        lacking.extend(name for name in files if not (tmp_path / name).exists())
        save(payload, path)

    network = nn.Linear(1, 1)
    job = Job(tmp_path, checkpoint_seconds=seconds)
    with mock.patch.object(torch, "save", checked):
        for step in job.steps(4, {"network": network}):
            nn.init.constant_(network.weight, step)
            job.keep_beside({f"kept-{step}": network.state_dict()}, slow)
            nn.init.constant_(network.weight, -1)
    assert lacking == []
    assert [(tmp_path / f"kept-{step}").read_text() for step in range(4)] == [
        str(float(step)) for step in range(4)
    ]


def wait_for(path: Path) -> None:
    while not path.exists():
        threading.Event().wait(0.001)


def test_no_thread_is_left_behind_however_the_loop_ends(tmp_path: Path) -> None:
    before = threading.active_count()
    for number, end in enumerate((stop_at, crash_at)):
        (tmp_path / str(number)).mkdir()
        end(Job(tmp_path / str(number), checkpoint_seconds=OFTEN), 5)
        assert threading.active_count() == before
    fit(Job(tmp_path, checkpoint_seconds=OFTEN))
    assert threading.active_count() == before
    steps = Job(tmp_path, checkpoint_seconds=OFTEN).steps(TOTAL, {}, "other")
    next(steps), next(steps)
    assert isinstance(steps, Iterator)
    steps.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_a_checkpoint_that_cannot_be_written_ends_the_training_with_the_disks_words(
    tmp_path: Path,
) -> None:
    def full(payload: object, path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    with mock.patch.object(torch, "save", full), pytest.raises(OSError, match="No space left"):
        fit(Job(tmp_path, checkpoint_seconds=OFTEN), total=10**9)


def test_a_stop_waits_for_what_is_being_written_and_writes_the_last_step(tmp_path: Path) -> None:
    gate = threading.Event()
    threading.Timer(0.2, gate.set).start()
    with held_up(gate):
        stop_at(Job(tmp_path, seed=3, checkpoint_seconds=OFTEN), 5)
    payload = torch.load(tmp_path / "train.checkpoint", weights_only=True)
    assert payload["step"] == 6
    assert unfinished.intact(tmp_path / "train.checkpoint")


def test_a_copy_has_the_bits_the_types_and_the_versions_of_the_state_and_shares_nothing() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.randn(4, 2)).sum().backward()
    optimizer.step()
    state: dict[str, Any] = {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": 3,
    }
    copy, arrived = copied(state)
    arrived()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    optimizer.step()
    assert copy["step"] == 3
    assert type(copy["network"]) is type(state["network"])
    assert copy["network"]._metadata == state["network"]._metadata
    assert all(copy["network"][name].equal(tensor) for name, tensor in before.items())
    assert {entry["step"].item() for entry in copy["optimizer"]["state"].values()} == {1.0}
    assert copy["optimizer"]["param_groups"] == state["optimizer"]["param_groups"]


def test_what_fails_beside_is_raised_once() -> None:
    beside = Beside()
    beside.start(partial(int, "no number"))
    with pytest.raises(ValueError, match="no number"):
        beside.wait()
    beside.wait()
    assert beside.spent() >= 0
