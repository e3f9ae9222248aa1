"""A run outlives its tracker: what the tracker raises is said once, and the stages go on."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from fw.core.errors import FwError
from fw.core.plan.assembly import plan
from fw.core.recipe.loading import load
from fw.core.run.tracking import Tracking
from fw.core.run.untracked import Untracked
from fw.core.store.store import Store

TINY = Path(__file__).parent / "tiny.yaml"


class Broken(Untracked):
    """A tracker whose server has gone away."""

    def __init__(self, error: Exception):
        self.error = error
        self.calls = 0

    def series(self, arm: str | None, records: Sequence[Mapping[str, float]]) -> None:
        self.calls += 1
        raise self.error


@pytest.mark.parametrize("error", [FwError("no server answers"), KeyError("run")])
def test_a_tracker_that_fails_is_told_once_and_not_asked_again(
    tmp_path: Path, error: Exception
) -> None:
    planned = plan(load(TINY))
    said = io.StringIO()
    tracked = Broken(error)
    tracking = Tracking(planned, Store(tmp_path), Console(file=said), lambda: tracked)
    tracking.begin()
    trainings = [stage for stage in planned.stages.values() if stage.kind == "train"]
    assert len(trainings) == 2
    for stage in trainings:
        tracking.metrics(stage.id, [{"step": 0, "train/loss": 1.0}])
    assert tracked.calls == 1
    assert said.getvalue().count("the run goes on") == 1


def test_the_curves_of_different_encoders_do_not_share_a_name(tmp_path: Path) -> None:
    heard: list[str] = []

    class Listening(Untracked):
        def series(self, arm: str | None, records: Sequence[Mapping[str, float]]) -> None:
            heard.extend(key for record in records for key in record if key != "step")

    encoders = ["encoder={name: dino, steps: 1}", "arms.other={encoder: {name: dino, steps: 2}}"]
    planned = plan(load(TINY, encoders))
    tracking = Tracking(planned, Store(tmp_path), Console(file=io.StringIO()), Listening)
    tracking.begin()
    for stage in planned.stages.values():
        if stage.title == "encode dino, digits views":
            tracking.metrics(stage.id, [{"step": 0, "loss": 1.0}])
    assert len(heard) == len(set(heard)) == 2
