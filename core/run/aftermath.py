"""What a run that died could not say itself: for its tracker it has ended, as `killed`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fw.core.kinds import Tracker
from fw.core.report.runfile import handle_in, read_resolved
from fw.core.run.owner import abandoned
from fw.core.run.record import Turn, previous_run
from fw.registry import installed


def end_abandoned(out: Path, say: Callable[[str], object]) -> None:
    """End the runs in a runs folder whose process is dead, on this machine. What cannot be ended
    now, because a server is away, say, is left to a later command: the note of its owner stays,
    and that is this process then."""
    for folder in abandoned(out):
        with Turn(folder) as turn:
            if turn.take():
                say(f"the process of {folder} died; telling its tracker")
                turn.ended = end(folder, out)


def end(folder: Path, out: Path) -> bool:
    """Tell the run's tracker; whether it has heard."""
    try:
        source = read_resolved(folder).data
        named = source.get("tracker")
        if named is None:
            return True
        name, fields = (named, {}) if isinstance(named, str) else (named["name"], named)
        kind = installed().get("tracker", name)
        tracker = kind.model_validate(
            {key: value for key, value in fields.items() if key != "name"}
        )
        assert isinstance(tracker, Tracker)
        known = {"recipe": source["name"], "key": folder.name}
        tracker.close({**known, **(handle_in(previous_run(folder), name) or {})}, out, "killed")
    except (
        Exception
    ):  # a server that is away, a tracker that is not installed here, a damaged folder
        return False
    return True
