"""The right to do something, of one process at a time, as a file that its holder keeps fresh.

It needs no locks of the operating system, which do nothing on some network file systems: only that
a file can be created by one process alone, as NFS and Lustre promise. A lease is `<number>.lease`
in a folder of its own. Who finds that the holder of number 3 is dead, or has shown no life for
`LEASE` seconds, creates number 4, which one process alone can; then it removes number 3. So a
holder that was paused finds its file gone, and must ask (`check`) before it hands anything over.

How old a lease is, is told by the clock that gives files their times, and not by the machine's.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fw.core.errors import Held, LeaseLost
from fw.core.machine.processes import Process

LEASE = 60.0
"""Seconds without a sign of life after which a lease may be taken over."""

BEAT = 10.0
"""Seconds between signs of life."""

ENDING = ".lease"
GONE = (errno.ENOENT, errno.ESTALE)
TRIES = 100


@dataclass(frozen=True)
class Right:
    """What a process, or another one that works for it, can show for a lease."""

    file: Path
    token: str

    @property
    def valid(self) -> bool:
        """Whether the lease is still held, by its file."""
        try:
            return read(self.file).token == self.token
        except OSError as error:
            if error.errno in GONE:
                return False
            raise

    def check(self) -> None:
        """LeaseLost if it is another process's now."""
        if self.valid:
            return
        other = holder(self.file.parent)
        if other is None:
            why = f"its lease is gone, {self.file}: was the folder deleted, or this process paused?"
        else:
            why = (
                f"it was taken over, because this process showed no life for more than {LEASE:g} s "
                "(was it paused?);"
            )
        raise LeaseLost(f"{why} nothing of this try is published", other or "another process")


class Lease:
    """What this process holds until it is released or lost."""

    def __init__(self, right: Right):
        self.right = right
        self.lost = False
        """Whether a beat has noticed that another process has taken it over."""
        self._ended = threading.Event()
        name = f"lease of {right.file.parent}"
        threading.Thread(target=self._beat, name=name, daemon=True).start()

    def release(self) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):
            if self.right.valid:
                self.right.file.unlink()
            self.right.file.parent.rmdir()  # fails where somebody is taking the next one

    def _beat(self) -> None:
        while not self._ended.wait(BEAT) and not self.lost:
            with contextlib.suppress(OSError):  # of a server that is away, say; it may come back
                self.lost = not self.right.valid
                if not self.lost:
                    os.utime(self.right.file)


@dataclass(frozen=True)
class Claim:
    """What the file of a lease says."""

    token: str
    """Empty where it cannot be read, as while it is being written."""
    process: Process | None
    fresh: float
    """When it last showed life, by the clock of the file system."""

    @property
    def holder(self) -> str:
        return str(self.process or "another process")

    def free(self, folder: Path) -> bool:
        """Whether it may be taken over."""
        dead = self.process is not None and self.process.dead
        return dead or now(folder) - self.fresh > LEASE


def take(folder: Path) -> Lease:
    """The lease of a folder, which is made if need be. Held if another process has it; an OSError
    where nothing can be written."""
    for _ in range(TRIES):
        with contextlib.suppress(FileExistsError, FileNotFoundError):  # others come and go
            folder.mkdir(parents=True, exist_ok=True)
            before = claims(folder)
            if (whose := living(before, folder)) is not None:
                raise held(whose)
            number, token = max(before, default=0) + 1, secrets.token_hex(16)
            file = folder / f"{number}{ENDING}"
            create(file, token)
            others = {key: claim for key, claim in claims(folder).items() if key != number}
            if tokens(others) == tokens(before):
                for old in others:
                    (folder / f"{old}{ENDING}").unlink(missing_ok=True)
                return Lease(Right(file, token))
            file.unlink()  # what was to be taken over has changed hands meanwhile
    raise held("another process")


@contextlib.contextmanager
def in_turn(folder: Path) -> Iterator[Lease]:
    """Have the lease of a folder, as soon as no other process has it."""
    while True:
        with contextlib.suppress(Held):
            lease = take(folder)
            break
        time.sleep(0.2)
    try:
        yield lease
    finally:
        lease.release()


def held(holder: str) -> Held:
    return Held(f"{holder} is at it", holder)


def holder(folder: Path) -> str | None:
    """Who has the lease of a folder, in words; None if it can be taken."""
    with contextlib.suppress(FileNotFoundError):
        return living(claims(folder), folder)
    return None


def living(claims: dict[int, Claim], folder: Path) -> str | None:
    """Who has one of them that may not be taken over; the highest number counts."""
    for _, claim in sorted(claims.items(), reverse=True):
        if not claim.free(folder):
            return claim.holder
    return None


def claims(folder: Path) -> dict[int, Claim]:
    """By number. One is the rule; there are two while one is taken over."""
    found = {}
    for file in folder.iterdir():
        if file.suffix == ENDING and file.stem.isdecimal():
            with contextlib.suppress(FileNotFoundError):
                found[int(file.stem)] = read(file)
    return found


def tokens(claims: dict[int, Claim]) -> dict[int, str]:
    return {number: claim.token for number, claim in claims.items()}


def create(file: Path, token: str) -> None:
    """FileExistsError if another process was faster."""
    note = json.dumps({"token": token, **asdict(Process.this())})
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        os.write(descriptor, note.encode())
    except OSError:  # the disk is full, say
        file.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def read(file: Path) -> Claim:
    """Opening a file is what makes NFS ask its server how it is now."""
    with file.open(encoding="utf-8") as stream:
        fresh = os.fstat(stream.fileno()).st_mtime
        try:
            note = json.loads(stream.read())
            return Claim(str(note["token"]), Process.noted(note), fresh)
        except (ValueError, LookupError, TypeError):
            return Claim("", None, fresh)


def now(folder: Path) -> float:
    """The time that a file gets that is made in this folder now."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        return os.fstat(probe.fileno()).st_mtime
