"""The contract of a tracker, and what this one does."""

import json
from pathlib import Path

from fw.core.kinds import ArmDescription, RunDescription
from fw.core.templates.tracker import Example
from fw.core.testing import check


def test_it_keeps_the_contract() -> None:
    check(Example())


def test_a_resumed_run_logs_nothing_twice_and_only_what_is_new(tmp_path: Path) -> None:
    arms = [ArmDescription("plain", {"seed": "0"})]
    run = RunDescription(
        "toy", "key", tmp_path, tmp_path, "plain", "eval/fd", arms, tags={}, previous=None
    )
    for steps, status in ((1, "killed"), (2, "finished"), (2, "finished")):
        tracked = Example().open(run)
        tracked.series("plain", [{"step": step, "loss": 1.0} for step in range(steps)])
        tracked.end(status)
    events = [
        json.loads(line)
        for line in (tmp_path / Example().file).read_text(encoding="utf-8").splitlines()
    ]
    assert [(event["what"], event["step"]) for event in events] == [
        ("param", None),
        ("series", 0),
        ("status", None),
        ("series", 1),
        ("status", None),
    ]
