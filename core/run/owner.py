"""Who writes a run's record, and whether that process is still alive."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OWNER = ".owner.json"
"""The note in a run's folder, there for as long as somebody writes it."""


def owner(folder: Path) -> str:
    """Whoever has the right, in words."""
    try:
        note = json.loads((folder / OWNER).read_text(encoding="utf-8"))
        return f"process {note['pid']} on {note['host']}"
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"


def this_process() -> dict[str, Any]:
    """What tells this process from all others, also from those that get its number later."""
    return {
        "host": socket.gethostname(),
        "boot": boot_id(),
        "pid": os.getpid(),
        "started": started(os.getpid()),
    }


def boot_id() -> str:
    """Another one each time that the machine is started, or nothing where it does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def started(pid: int) -> str:
    """When a process began, in ticks since the machine did; nothing if it has ended, or where
    that is not told."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        state, *facts = text.rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state == "Z" else facts[18]  # Z: it has ended, and its parent has not noticed


def abandoned(out: Path) -> Iterator[Path]:
    """The run folders below `out` whose owner has died on this machine; those of other machines
    are left alone."""
    for note in sorted(out.glob(f"*/*/{OWNER}")):
        if note.parent.is_symlink():  # `latest` is one of the others
            continue
        try:
            said = json.loads(note.read_text(encoding="utf-8"))
            here = said["host"] == socket.gethostname()
            dead = said["boot"] != boot_id() or not alive(said["pid"], said["started"])
        except (OSError, ValueError, LookupError, TypeError, OverflowError):
            continue
        if here and dead:
            yield note.parent


def alive(pid: int, since: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is somebody else's
    return started(pid) == since
