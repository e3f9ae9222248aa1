"""Which process this is, and whether another one is known to have ended."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Process:
    """What tells a process from all others, also from those that get its number later."""

    host: str
    boot: str
    """Of the machine since it was last started; empty where it does not say."""
    pid: int
    started: str
    """In ticks since the machine was; empty where that is not told."""
    space: str = ""
    """The numbers of a container's processes mean nothing outside it; empty where unknown."""

    @classmethod
    def this(cls) -> Process:
        pid = os.getpid()
        return cls(socket.gethostname(), boot_id(), pid, started(pid), space())

    @classmethod
    def noted(cls, note: Mapping[str, Any]) -> Process:
        """The process of a note; a ValueError, LookupError or TypeError if it is none."""
        host, boot, pid, since = (note[key] for key in ("host", "boot", "pid", "started"))
        if not (isinstance(pid, int) and 0 < pid < 2**31):
            raise ValueError(f"{pid!r} is no process")
        return cls(str(host), str(boot), pid, str(since), str(note.get("space", "")))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def here(self) -> bool:
        """Whether it is, or was, one of this machine, whose processes can be looked up."""
        return self.host == socket.gethostname() and self.space in ("", space())

    @property
    def dead(self) -> bool:
        """Whether it is known to have ended since this machine was started. Of other machines,
        nothing is known."""
        return self.here and self.boot == boot_id() and not alive(self.pid, self.started)


def boot_id() -> str:
    """Another one each time that the machine is started, or nothing where it does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def space() -> str:
    """Which processes are counted together, or nothing where it does not say."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
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


def alive(pid: int, since: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is somebody else's
    return started(pid) == since
