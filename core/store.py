"""A directory of finished stages, addressed by key, that survives crashes and notices rot.

Work happens in `<stage>.partial/`; publishing writes a manifest with a checksum for every file and renames the folder.
A crash leaves the partial folder, and the next try continues in it. A lock per stage lets several runs share a store.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from fw.core.errors import FwError, Interrupted

MANIFEST = "manifest.json"
SCRATCH = (".checkpoint", ".writing")
"""Files with these endings matter only until the stage is finished."""


class Status(NamedTuple):
    """`done`, `absent` or `corrupted`, with the reason for the last."""

    state: str
    reason: str = ""


class Store:
    """See the module's docstring."""

    def __init__(self, root: Path):
        self.root = root

    def create(self) -> None:
        """Make the folder, or raise FwError saying why it cannot be written to."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".writable-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise FwError(f"cannot write to {self.root}: {error.strerror}; choose another folder with --out") from None

    def path(self, stage: str) -> Path:
        return self.root / stage

    def partial(self, stage: str) -> Path:
        return self.root / f"{stage}.partial"

    def manifest(self, stage: str) -> dict[str, Any]:
        return json.loads((self.path(stage) / MANIFEST).read_text())

    def status(self, stage: str) -> Status:
        """Whether the stage is finished; reads every byte of it to compare checksums."""
        if not self.path(stage).exists():
            return Status("absent")
        try:
            files = {name: recorded["sha256"] for name, recorded in self.manifest(stage)["files"].items()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return Status("corrupted", f"its {MANIFEST} cannot be read")
        for name, recorded in files.items():
            try:
                found = checksum(self.path(stage) / name)
            except FileNotFoundError:
                return Status("corrupted", f"{name} is missing")
            except OSError as error:
                return Status("corrupted", f"{name} cannot be read: {error.strerror}")
            if found != recorded:
                return Status("corrupted", f"the checksum of {name} is wrong")
        return Status("done")

    def discard(self, stage: str) -> None:
        shutil.rmtree(self.path(stage))

    def begin(self, stage: str) -> Path:
        """The folder to work in: fresh, or as a crash left it."""
        folder = self.partial(stage)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def publish(self, stage: str, payload: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Make what is in the partial folder the finished stage, in one atomic rename; checkpoints go after it."""
        folder = self.partial(stage)
        (folder / MANIFEST).unlink(missing_ok=True)
        made = [file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file()]
        files = {
            file.as_posix(): {"sha256": checksum(folder / file), "bytes": (folder / file).stat().st_size}
            for file in made
            if file.suffix not in SCRATCH
        }
        manifest = {"stage": stage, "files": files, "payload": payload, **facts}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
        folder.replace(self.path(stage))
        for file in made:
            if file.suffix in SCRATCH:
                (self.path(stage) / file).unlink()

    @contextlib.contextmanager
    def lock(self, stage: str, waiting: Callable[[], None], stopping: Callable[[], bool]) -> Iterator[None]:
        """Hold the stage's lock; `waiting` is called once if another run has it."""
        locks = self.root / "locks"
        locks.mkdir(exist_ok=True)
        lock = FileLock(locks / f"{stage}.lock")
        told = False
        while True:
            try:
                lock.acquire(timeout=0.5)
                break
            except Timeout:
                if not told:
                    waiting()
                    told = True
                if stopping():
                    raise Interrupted("stopped while waiting for another run") from None
        try:
            yield
        finally:
            lock.release()


def checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
