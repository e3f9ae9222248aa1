"""What a command does first: plugins of --plugin, runs whose process has died, trackers by name."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

from fw.core.errors import FwError
from fw.core.messages.escaping import visible


def end_dead_runs(out: Path) -> None:
    """End at their trackers the runs of a runs folder whose process has died."""
    from fw.core.run.aftermath import end_abandoned

    with contextlib.suppress(Exception):  # faults of those runs do not concern this command
        end_abandoned(out.absolute(), lambda text: print(visible(text), file=sys.stderr))


def add_plugins(files: list[Path] | None) -> None:
    """Add the plugins of --plugin to those that are installed."""
    if files:
        from fw.core.recipe import local_plugins

        local_plugins.add_plugins(files, "--plugin")


def tracker_of(name: str) -> Any:
    """An installed tracker, with its defaults; FwError if there is none of the name."""
    from fw.registry import UnknownComponent, installed

    try:
        return installed().get("tracker", name)()
    except UnknownComponent as error:
        raise FwError(f"--tracker {name}: {error}") from None
