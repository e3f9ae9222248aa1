"""What a run that died could not say itself: for its tracker it has ended, as `killed`."""

from __future__ import annotations

from pathlib import Path

from fw.core.kinds import Tracker
from fw.core.owner import OWNER, abandoned
from fw.core.record import Record
from fw.core.runfile import read_record, read_resolved
from fw.registry import installed


def end_abandoned(out: Path) -> None:
    """End the runs in a runs folder whose process is dead, on this machine. What cannot be ended now, because a server
    is away, say, is left to a later command, without a word: nobody asked about it."""
    for folder in abandoned(out):
        note = (folder / OWNER).read_bytes()
        with Record(folder) as record:
            if not record.take():
                continue
            ended = end(folder, out)
        if not ended:
            (folder / OWNER).write_bytes(note)


def end(folder: Path, out: Path) -> bool:
    """Tell the run's tracker; whether it has heard."""
    try:
        run = read_record(folder)
        named = read_resolved(folder).data.get("tracker")
        name = named.get("name") if isinstance(named, dict) else named
        if name not in run:
            return True  # it died before the tracker knew it
        tracker = installed().get("tracker", name)()
        assert isinstance(tracker, Tracker)
        tracker.close(run[name], out, "killed")
    except Exception:  # a server that is away, a tracker that is not installed here, a damaged folder
        return False
    return True
