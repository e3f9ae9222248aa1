"""Start `fw` in a process group of its own: as a fork of this process, or afresh.

A fork has everything imported already, which is nearly all the time that a small run takes.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import signal
import sys
import time
import traceback
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torture import trap

TESTS = Path(__file__).parents[1]
SITE = Path(__file__).parent / "site"

PATIENCE = 240.0
"""Seconds after which a run counts as stuck."""

SUBREAPER = 36
"""prctl(2): orphans of our descendants become our children, so that their end can be waited for."""

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_OFFLINE": "1",
}


@dataclass
class Ended:
    """How a run ended: minus the signal's number where one did it, None where it had to be
    stopped."""

    code: int | None
    output: str
    cpu: float
    seconds: float


@dataclass
class Running:
    """A run that was started, the leader of its own process group."""

    pid: int
    log: Path
    began: float

    def wait(self, patience: float = PATIENCE) -> Ended:
        """Until the process ends; children that it leaves behind may go on."""
        code, cpu = None, 0.0
        while time.monotonic() - self.began < patience:
            pid, status, used = os.wait4(self.pid, os.WNOHANG)
            if pid:
                code, cpu = os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
                break
            time.sleep(0.01)
        else:
            os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        seconds = time.monotonic() - self.began
        return Ended(code, self.log.read_text(encoding="utf-8", errors="replace"), cpu, seconds)

    def orphans(self, patience: float = 30.0) -> bool:
        """Whether anything of the group is still alive after a while; it is killed then."""
        deadline = time.monotonic() + patience
        while alive(self.pid):
            if time.monotonic() > deadline:
                os.killpg(self.pid, signal.SIGKILL)
                return True
            time.sleep(0.02)
        return False


def alive(group: int) -> bool:
    """Whether the group has a process, once those are reaped that became ours."""
    try:
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def start(
    words: Sequence[str | Path],
    log: Path,
    *,
    trapped: str | None = None,
    environment: Mapping[str, str] | None = None,
    fresh: bool = False,
    imported: int | None = None,
) -> Running:
    """`fw WORDS`, its output in `log`; `trapped` is what torture.trap.told says."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    changes = {**ENVIRONMENT, **(environment or {})}
    if trapped is not None:
        changes[trap.VARIABLE] = trapped
    given = list(map(str, words))
    pid = start_fresh(given, log, changes) if fresh else fork(given, log, changes, imported)
    return Running(pid, log, time.monotonic())


def start_fresh(words: list[str], log: Path, changes: Mapping[str, str]) -> int:
    environment = {**os.environ, **changes, "PYTHONPATH": search_path(changes)}
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            redirect(log)
            program = [sys.executable, "-m", "fw.core", *words]
            os.execve(sys.executable, program, environment)
        finally:
            os._exit(70)
    return pid


def search_path(changes: Mapping[str, str]) -> str:
    given = [changes.get("PYTHONPATH", ""), os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join([str(SITE), str(TESTS), *filter(None, given)])


def fork(
    words: list[str], log: Path, changes: Mapping[str, str], imported: int | None = None
) -> int:
    """The process that runs the command; it writes what it imported to the descriptor
    `imported`."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code, before = 70, set(sys.modules)
        try:
            os.setsid()
            redirect(log)
            sys.modules["__main__"] = types.ModuleType(
                "__main__"
            )  # workers would import the driver
            os.environ.update(changes)
            os.environ["PYTHONPATH"] = search_path(changes)  # for worker processes
            if trap.VARIABLE in changes:
                trap.arm(changes[trap.VARIABLE])
            code = call(words)
            if imported is not None:
                os.write(imported, json.dumps([*sys.modules.keys() - before]).encode())
        except BaseException:
            traceback.print_exc()
            code = 1
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code)
    return pid


def redirect(log: Path) -> None:
    """Standard streams as those of a process whose output goes to a file."""
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    for descriptor, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, output), (2, output)):
        os.dup2(source, descriptor)
    sys.stdin = os.fdopen(0, "r", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", buffering=1, closefd=False)


def call(words: Sequence[str]) -> int:
    """What the console script does, without ending the process."""
    from fw.core.cli import app, guarded, quiet_threads

    quiet_threads()
    try:
        code: Any = guarded(lambda: app(list(words), prog_name="fw"))
    except SystemExit as ended:
        code = ended.code
    return code if isinstance(code, int) else int(bool(code))


def warm(
    words: Sequence[str | Path],
    log: Path,
    *,
    trapped: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run `fw WORDS` in a fork, and import here what it imported, so that later forks need not."""
    os.environ.update(ENVIRONMENT)
    import fw.core.run.run  # noqa: F401
    from fw.registry import installed

    installed()
    become_subreaper()
    found, there = os.pipe()
    run = start(words, log, trapped=trapped, environment=environment, imported=there)
    os.close(there)
    with os.fdopen(found) as stream:
        names = json.loads(stream.read() or "[]")
    ended = run.wait()
    for name in names:
        with contextlib.suppress(Exception):  # made on the fly, say; the next run will see to it
            importlib.import_module(name)
    return ended


def become_subreaper() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
