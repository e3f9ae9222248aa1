"""Run on disks that fill up at several points; then give room, run again, and compare every byte.

Every second disk is a real one: a tmpfs of a certain size, where the kernel lets us mount one. On
the others every file that Python opens to write fails from the n-th on, which also reaches the
places that write little.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import re
import shutil
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from torture import launch, trap
from torture.kills import check_finished
from torture.tally import Tally, command, traceback_in
from torture.undisturbed import Undisturbed, run_words, undisturbed

KINDS = (
    *("wrong result", "traceback", "RUNNING", "litter", "exit code", "stuck", "no clear sentence"),
    *("tracker differs", "missing file"),
)

SAID = re.compile(r"no space left|disk (quota|full)|disk is full|database or disk", re.IGNORECASE)

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_REMOUNT, MS_REC, MS_PRIVATE = 32, 16384, 1 << 18

ROOMY = "size=256m"


def drive(count: int, seed: int, out: Path) -> Tally:
    """Fill `count` disks."""
    tally = Tally("disks", seed, KINDS)
    expected = undisturbed(out / "undisturbed")
    reason = why_no_mounts(out)
    if reason:
        tally.skipped.append(f"real disks: {reason}; all are Python's")
    for number in range(count):
        real = number % 2 == 0 and not reason
        draw = random.Random(f"{seed} {number}")
        # Spread over the run: the share of what it writes that there is room for.
        share = (number + draw.random()) / count
        folder = out / f"disk-{number}"
        folder.mkdir(parents=True)
        filled = on_tmpfs if real else in_python
        filled(share, folder, expected, f"disk {number}", tally)
        tally.seen["tmpfs" if real else "Python's"] += 1
        tally.tried += 1
        shutil.rmtree(folder, ignore_errors=True)
    return tally


def in_python(share: float, folder: Path, expected: Undisturbed, what: str, tally: Tally) -> None:
    out = folder / "out"
    at = 1 + int(share * expected.operations)
    told = trap.told(out, folder / "ticks", {at: "full disk"})
    ended = launch.start(run_words(out), folder / "full.log", trapped=told).wait()
    what = f"{what} (Python's, full from operation {at} of {expected.operations})"
    check_full(ended, what, tally)
    again = launch.start(run_words(out), folder / "again.log").wait()
    check_finished(again, out, expected, what, tally)


def on_tmpfs(share: float, folder: Path, expected: Undisturbed, what: str, tally: Tally) -> None:
    """In a child process, because its mounts are its own and go with it."""
    size = max(16, int(share * expected.bytes / 1024))
    what = f"{what} (tmpfs of {size} of {expected.bytes // 1024} KiB)"
    part = Tally(tally.name, tally.seed, ())
    faults = folder / "faults.json"
    out = folder / "mount"
    out.mkdir()
    with child() as is_child:
        if is_child:
            own_mounts()
            mount(out, f"size={size}k")
            ended = launch.start(run_words(out), folder / "full.log").wait()
            check_full(ended, what, part)
            mount(out, ROOMY, MS_REMOUNT)
            again = launch.start(run_words(out), folder / "again.log").wait()
            check_finished(again, out, expected, what, part)
            faults.write_text(json.dumps([part.counts, part.examples]), encoding="utf-8")
    if not faults.exists():
        tally.fault("stuck", f"{what}: the trial itself failed")
        return
    counts, examples = json.loads(faults.read_text(encoding="utf-8"))
    tally.counts.update(counts)
    tally.examples += examples


def check_full(ended: launch.Ended, what: str, tally: Tally) -> None:
    """One clear sentence and exit code 1 or 2; where only the tracker had no room, a warning."""
    if ended.code is None:
        tally.fault("stuck", f"{what}: {ended.output[-200:]!r}")
        return
    if told := traceback_in(ended.output):
        tally.fault("traceback", f"{what}: {told}")
    elif not SAID.search(ended.output) and ended.code != 0:
        tally.fault("no clear sentence", f"{what}: {ended.output[-200:]!r}")
    if ended.code not in (0, 1, 2):
        tally.fault("exit code", f"{what}: {ended.code}, {ended.output[-200:]!r}")
    if ended.code == 0 and SAID.search(ended.output) and "warning:" not in ended.output:
        tally.fault("exit code", f"{what}: 0, {ended.output[-200:]!r}")


def why_no_mounts(folder: Path) -> str | None:
    """Why no tmpfs can be mounted here, if that is so."""
    place, answer = folder / "mount", folder / "mount.txt"
    place.mkdir(parents=True, exist_ok=True)
    answer.unlink(missing_ok=True)
    with child() as is_child:
        if is_child:
            try:
                own_mounts()
                mount(place, "size=16k")
                answer.write_text("", encoding="utf-8")
            except (OSError, AttributeError) as error:
                answer.write_text(f"mounting is not allowed ({error})", encoding="utf-8")
    return answer.read_text(encoding="utf-8") or None


@contextlib.contextmanager
def child() -> Iterator[bool]:
    """The block twice: in a child process, which ends with it, and here once that has ended."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        yield False
        return
    try:
        launch.become_subreaper()
        yield True
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(0)


def own_mounts() -> None:
    """A mount namespace of this process's own; as an ordinary user, in a user namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNS | (CLONE_NEWUSER if user else 0)):
        raise failed()
    if user:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1", encoding="ascii")
    if libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
        raise failed()


def mount(folder: Path, options: str, flags: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, options.encode()):
        raise failed()


def failed() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


if __name__ == "__main__":
    sys.exit(command(drive, {"count": 12}))
