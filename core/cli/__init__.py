"""The `fw` command. Heavy imports happen inside the commands, so that `fw --help` answers at
once."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fw.core.cli.app import app
from fw.core.cli.completing import COMPLETING, answer_shell
from fw.core.cli.ending import guarded
from fw.core.machine.offline import stay_offline
from fw.core.machine.streams import sturdy

__all__ = ["app", "guarded", "main", "quiet_threads"]


def main() -> None:
    """The console script."""
    if COMPLETING in os.environ:
        sys.exit(answer_shell(app))
    sturdy()
    quiet_threads()
    stay_offline()
    sys.exit(guarded(start))


def start() -> None:
    """Run the command line. It needs a working directory that is there: libraries crash without
    one."""
    Path.cwd()
    app()


def quiet_threads() -> None:
    """Small networks on shared cores: one OpenMP thread that does not spin, unless the user says
    otherwise.

    Two spinning threads on two shared cores were measured 15 to 130 times slower than one. OpenMP
    reads this when torch is imported, and worker processes inherit it.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
