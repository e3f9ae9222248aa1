"""Strikes a process at its n-th operation on files below a folder: a signal, or a disk that is
full.

Python tells an audit hook of every open, rename, removal and new folder before it happens. What is
to be done stands in an environment variable, which worker processes inherit; `site/sitecustomize`
arms them. All processes of a run count together, in a file that each appends one byte to.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

VARIABLE = "FW_TORTURE"

OPERATIONS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink"})
MAKE_FILES = frozenset({"os.mkdir", "os.symlink"})
"""Operations that need room on the disk, but for opening."""

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def told(root: Path, ticks: Path, strikes: Mapping[int, str], where: str = "anywhere") -> str:
    """What `arm` is to be given: strike n -> `kill group`, `kill parent`, `kill self`, `full disk`,
    or `signal SIGTERM` to the group. `where` is `workers` to count in worker processes alone."""
    return json.dumps({"root": str(root), "ticks": str(ticks), "strikes": strikes, "where": where})


def count(ticks: Path) -> int:
    """How many operations there were."""
    return ticks.stat().st_size if ticks.exists() else 0


def arm(text: str) -> None:
    """Set the trap in this process, for good."""
    plan = json.loads(text)
    root: str = plan["root"]
    strikes = {int(number): what for number, what in plan["strikes"].items()}
    counter = os.open(plan["ticks"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    full = [False]
    busy = [False]

    def hook(event: str, args: Sequence[Any]) -> None:
        if event not in OPERATIONS or busy[0] or not below(args[0], root):
            return
        if event == "open" and not changes(args[1], args[2]):
            return
        if plan["where"] == "workers" and not in_worker():
            return
        busy[0] = True
        try:
            os.write(counter, b".")
            number = os.lseek(counter, 0, os.SEEK_CUR)
            what = strikes.get(number)
            if what == "full disk":
                full[0] = True
            elif what is not None:
                strike(what)
        finally:
            busy[0] = False
        if full[0] and needs_room(event, args):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(args[0]))

    sys.addaudithook(hook)


def below(path: Any, root: str) -> bool:
    """Whether a path of any form lies below the folder; open descriptors do not tell."""
    if isinstance(path, int) or path is None:
        return False
    return os.fsdecode(path).startswith(root)


def changes(mode: Any, flags: Any) -> bool:
    """Whether a file is opened to write to it or, without a mode, to sync it."""
    return mode is None or bool(flags & WRITES)


def needs_room(event: str, args: Sequence[Any]) -> bool:
    return event in MAKE_FILES or (event == "open" and bool(args[2] & WRITES))


def in_worker() -> bool:
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def strike(what: str) -> None:
    verb, _, name = what.partition(" ")
    if verb == "signal":
        os.killpg(os.getpgrp(), signal.Signals[name])
    elif name == "group":
        os.killpg(os.getpgrp(), signal.SIGKILL)
    else:  # the process that was started leads its group
        os.kill(os.getpgrp() if name == "parent" else os.getpid(), signal.SIGKILL)
