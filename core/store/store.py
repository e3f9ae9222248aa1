"""A directory of finished stages, addressed by key, that survives crashes and notices damage.

Work happens in `<stage>.partial/`. Publishing writes a manifest with a checksum for every file and
renames the folder. A crash leaves the partial folder, and the next try continues in it. A lease per
stage (core/machine/leases.py) lets several runs share a store.

No product is used unchecked. Whoever reads one asks for it with `product` or `read`, which compare
the checksums, once in a command (fw.registry.once). So a start need not read every byte of a store.

A manifest also holds a digest of every product that the stage read. If such a product was made
again since and came out different (on another device, say), the stage is stale: it does not belong
to the products now in the store.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fw.core.errors import Damaged, Held, PutOff, StageFailed
from fw.core.files import unfinished
from fw.core.files.durable import ASIDE, put, sync, write_json, write_text
from fw.core.files.layout import MANIFEST
from fw.core.files.sealed import SEAL, intact, seal, stamped
from fw.core.files.unfinished import checksum
from fw.core.machine.leases import Lease, holder, take
from fw.core.messages.plain import writing
from fw.registry.once import found_once

STAGE = re.compile(r"[a-z_]+-[0-9a-f]{16}")
"""What the folder of a finished stage is called."""

PARTIAL = ".partial"
LEASES = "locks"
PROGRESS = ".progress"
SCRATCH = (".checkpoint", ASIDE, unfinished.VOUCHER, PROGRESS)
"""Files with these endings matter only until the stage is finished."""

STATES = ".pt"
"""The ending of files that only a longer training reads, which ends with the same bits without."""

LARGE = (".safetensors", STATES)
"""The endings of files that may be large. Reports read none of them."""

BEGUN = f"inputs{unfinished.VOUCHER}"
"""The file with the digest of the inputs that unfinished work began with."""

INPUTS = "inputs"
"""The manifest's key for the digests of the products that the stage read, by stage."""


class Status(NamedTuple):
    """`done`, `absent` or `corrupted`, with the reason for the last."""

    state: str
    reason: str = ""


class Store:
    """See the module's docstring."""

    def __init__(self, root: Path):
        self.root = root

    def create(self) -> None:
        """Make the folder; an FwError says why it cannot be written to."""
        with writing(self.root, "--out:"):
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / ".writable"
            probe.touch()
            probe.unlink(missing_ok=True)  # another run may have been faster

    def stages(self) -> set[str]:
        """All that have a product there, whole or not."""
        if not self.root.is_dir():
            return set()
        return {path.name for path in self.root.iterdir() if STAGE.fullmatch(path.name)}

    def path(self, stage: str) -> Path:
        return self.root / stage

    def partial(self, stage: str) -> Path:
        return self.root / f"{stage}{PARTIAL}"

    def manifest(self, stage: str) -> dict[str, Any]:
        manifest: dict[str, Any] = read_json(self.path(stage) / MANIFEST)
        return manifest

    def read(self, stage: str, name: str) -> Any:
        """The JSON in a file of a finished stage; Damaged if it is not as it was stored."""
        return read_json(self.checked(stage, only=[name]) / name)

    def product(self, stage: str) -> Path:
        """The folder of a finished stage, for whoever reads its files; Damaged if one of them is
        not as it was stored."""
        return self.checked(stage)

    def checked(self, stage: str, only: Collection[str] | None = None) -> Path:
        status = self.verify(stage, only)
        if status.state != "done":
            raise Damaged(stage, status.reason or "it is gone")
        return self.path(stage)

    def status(self, stage: str) -> Status:
        """Whether the stage is finished, as far as its manifest and the sizes of its files show."""
        if not self.path(stage).exists():
            return Status("absent")
        try:
            manifest = self.manifest(stage)
            files = {
                name: (recorded["sha256"], recorded["bytes"])
                for name, recorded in manifest["files"].items()
            }
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return Status("corrupted", f"its {MANIFEST} cannot be read")
        if SEAL in manifest and not intact(manifest):  # older manifests have none
            return Status("corrupted", f"the checksum of its {MANIFEST} is wrong")
        for name, (_, size) in files.items():
            try:
                actual = (self.path(stage) / name).stat().st_size
            except OSError as error:
                return unreadable(name, error)
            if actual != size:
                return Status("corrupted", f"{name} has {actual} bytes and not {size}")
        return Status("done")

    def verify(self, stage: str, only: Collection[str] | None = None) -> Status:
        """The same by the checksums of all files, or `only` of these. In a command every file is
        read once."""
        status = self.status(stage)
        if status.state != "done":
            return status
        for name, recorded in self.manifest(stage)["files"].items():
            if only is None or name in only:
                try:
                    right = as_recorded(self.path(stage) / name, recorded["sha256"])
                except OSError as error:
                    return unreadable(name, error)
                if not right:
                    return Status("corrupted", f"the checksum of {name} is wrong")
        return status

    def reportable(self, stage: str) -> Status:
        """The same by the checksums of the files that reports are made of, which are small."""
        status = self.status(stage)
        if status.state != "done":
            return status
        files = self.manifest(stage)["files"]
        return self.verify(stage, [name for name in files if not name.endswith(LARGE)])

    def readable(self, stage: str) -> bool:
        """Whether the stage has a manifest that can be read."""
        try:
            self.digest(stage)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return False
        return True

    def present(self, stage: str) -> bool:
        """Whether the stage is finished, by the sizes of its files, without reading them."""
        try:
            sizes = {
                name: recorded["bytes"] for name, recorded in self.manifest(stage)["files"].items()
            }
            return all(
                (self.path(stage) / name).stat().st_size == size for name, size in sizes.items()
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return False

    def finished(self, stages: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The manifests of those of the stages that are there and can be reported."""
        return {
            stage: self.manifest(stage)
            for stage in stages
            if self.reportable(stage).state == "done"
        }

    def digest(self, stage: str) -> str:
        """A finished stage's product in 64 hex digits, made from the names and checksums of its
        files, but states."""
        files = self.manifest(stage)["files"]
        return seal(
            {
                name: recorded["sha256"]
                for name, recorded in files.items()
                if not name.endswith(STATES)
            }
        )

    def digests(self, inputs: Iterable[str]) -> dict[str, str]:
        return {stage: self.digest(stage) for stage in sorted(set(inputs))}

    def stale(self, stage: str) -> list[str]:
        """The inputs of a finished stage whose products are gone, or are not those that it was
        made from."""
        inputs = self.manifest(stage).get(INPUTS, {}) if self.readable(stage) else {}
        return [source for source, digest in inputs.items() if not self.holds(source, digest)]

    def holds(self, stage: str, digest: str) -> bool:
        return self.readable(stage) and self.digest(stage) == digest

    def adopt(self, stage: str, inputs: Collection[str]) -> None:
        """Write the digests of its inputs into a finished stage's manifest, if it is too old to
        have them."""
        if not self.readable(stage):
            return
        manifest = self.manifest(stage)
        older = INPUTS not in manifest and SEAL not in manifest  # and not one with a damaged key
        if older and inputs and all(map(self.readable, inputs)):
            with contextlib.suppress(FileNotFoundError):  # another run was faster
                write_manifest(self.path(stage), {**manifest, INPUTS: self.digests(inputs)})

    def discard(self, stage: str) -> None:
        shutil.rmtree(self.path(stage))

    def begin(self, stage: str, inputs: Mapping[str, str] | None = None) -> Path:
        """The folder to work in: a new one, or what a crash left if it was `begun` with inputs
        of these digests."""
        folder = self.partial(stage)
        digest = seal(inputs or {})
        if folder.exists() and not self.begun(stage, inputs):
            shutil.rmtree(folder)
        if not folder.exists():
            folder.mkdir(parents=True)
            write_text(folder / BEGUN, digest)
        return folder

    def begun(self, stage: str, inputs: Mapping[str, str] | None = None) -> bool:
        """Whether there is unfinished work on inputs of these digests."""
        return begun_with(self.partial(stage)) == seal(inputs or {})

    def publish(
        self,
        stage: str,
        payload: Mapping[str, Any],
        facts: Mapping[str, Any],
        inputs: Mapping[str, str] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Make the partial folder the finished stage, in one atomic rename, and remove its
        checkpoints. `check` raises if another process has taken the stage over.

        StageFailed if a file that was kept for later tries was damaged.
        """
        check()
        folder = self.partial(stage)
        (folder / MANIFEST).unlink(missing_ok=True)
        made = [file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file()]
        files = {}
        for file in made:
            if file.suffix not in SCRATCH:
                sync(folder / file)
                digest = checksum(folder / file)
                if digest not in (unfinished.vouched(folder / file) or [digest]):
                    raise StageFailed(
                        f"{file} was damaged since it was written; run it again to make that file "
                        "again"
                    )
                files[file.as_posix()] = {"sha256": digest, "bytes": (folder / file).stat().st_size}
        write_manifest(
            folder,
            {
                "stage": stage,
                "files": files,
                "payload": payload,
                INPUTS: dict(inputs or {}),
                **facts,
            },
        )
        sync(folder)
        check()  # reading all of it took its time
        put(folder, self.path(stage))
        self.sweep(stage)

    def sweep(self, stage: str) -> None:
        """Remove from a finished stage the files that only the work on it needed, if a crash
        left some."""
        for file in sorted(self.path(stage).rglob("*")):
            if file.suffix in SCRATCH:
                file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lease(self, stage: str) -> Iterator[Lease]:
        """Be the one process that works on a stage; Held if another one does. What goes wrong
        because another one has taken it over meanwhile is a LeaseLost."""
        with writing(self.root / LEASES):
            lease = take(self.root / LEASES / stage)
        try:
            yield lease
        except PutOff:
            raise
        except Exception:
            lease.right.check()
            raise
        finally:
            lease.release()

    def clear(self, stage: str) -> None:
        """Remove the lease that a run has left on a stage which it was killed just behind."""
        folder = self.root / LEASES / stage
        if folder.exists():
            with contextlib.suppress(Held, OSError):
                take(folder).release()

    def holder(self, stage: str) -> str | None:
        """Who works on a stage, in words; None if nobody does."""
        with writing(self.root / LEASES):
            return holder(self.root / LEASES / stage)


def read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def as_recorded(file: Path, recorded: str) -> bool:
    """Whether a file has this checksum; a file that nobody has written to is read once in a
    command."""
    facts = file.stat()
    state = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    return found_once((as_recorded, file, recorded, state), lambda: checksum(file) == recorded)


def unreadable(name: str, error: OSError) -> Status:
    if isinstance(error, FileNotFoundError):
        return Status("corrupted", f"{name} is missing")
    return Status("corrupted", f"{name} cannot be read: {error.strerror}")


def begun_with(folder: Path) -> str:
    try:
        return (folder / BEGUN).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    write_json(folder / MANIFEST, stamped(manifest))
