"""The folder of a run: what it holds, and who writes it.

One process at a time writes a run's record, that is this folder and the tracker's run. It holds a
lease and leaves a note of who it is, so that a later command can tell when it died before it could
say how the run ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fw.core.errors import FwError, Held, Interrupted, OutOfOrder
from fw.core.files.durable import ASIDE, write_json, write_text
from fw.core.files.layout import RUN_FILE
from fw.core.files.strict import strict
from fw.core.machine.leases import Lease, take
from fw.core.machine.processes import Process
from fw.core.machine.stopping import Stopping
from fw.core.messages.plain import writing
from fw.core.recipe.model import Recipe
from fw.core.report.runfile import RESOLVED, read_record
from fw.core.run.owner import OWNER, owner
from fw.registry import LocalPlugin

LEASE = ".lease"

SCRATCH = ".package"
"""The folder in a run's folder where a model is put together for the tracker, also by it."""


def run_folder(recipe: Recipe, plugins: Sequence[LocalPlugin], out: Path) -> Path:
    """`<out>/<recipe>/<key>`, made if need be."""
    folder = out / recipe.name / run_key(recipe, plugins)
    with writing(folder, "--out:"):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def describe(recipe: Recipe, plugins: Sequence[LocalPlugin], folder: Path) -> None:
    """Write down what is run: the resolved recipe and its local plugins. For whoever has the
    turn."""
    with writing(folder, "--out:"):
        folder.mkdir(parents=True, exist_ok=True)  # somebody may have cleaned up meanwhile
        write_text(folder / RESOLVED, recipe.to_yaml())
        for plugin in plugins:
            (folder / "plugins").mkdir(exist_ok=True)
            (folder / "plugins" / plugin.path.name).write_bytes(plugin.text.encode())


def run_key(recipe: Recipe, plugins: Sequence[LocalPlugin]) -> str:
    """`seed<seed>-<hash>`, the hash of the resolved recipe and of the local plugins that it
    names."""
    return f"seed{recipe.seed}-{hashed(recipe, plugins)}"


def recipe_key(recipe: Recipe, plugins: Sequence[LocalPlugin]) -> str:
    """The same of all runs that differ in their seeds alone, or in where they are logged."""
    anyhow = {"seed": 0, "repeats": 1, "tracker": None}
    return hashed(recipe.model_copy(update=anyhow), plugins)


def hashed(recipe: Recipe, plugins: Sequence[LocalPlugin]) -> str:
    text = recipe.folder_text() + "".join(plugin.digest for plugin in plugins)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write_run(result: Mapping[str, Any], folder: Path) -> None:
    write_text(folder / RUN_FILE, strict(result))


def previous_run(folder: Path) -> dict[str, Any]:
    try:
        return read_record(folder)
    except FwError:
        return {}


def remember(tracker: str, handle: Mapping[str, Any] | None, recipe: str, folder: Path) -> None:
    """Keep what a tracker finds the run by, beside whatever run.json says."""
    known = previous_run(folder)
    if handle is not None and known.get(tracker) != handle:
        with writing(folder):
            write_run({**known, "recipe": recipe, tracker: dict(handle)}, folder)


def link_latest(folder: Path) -> None:
    """Make the run reachable as `<recipe>/latest`, where the file system has links."""
    with contextlib.suppress(OSError):
        fresh = folder.parent / ".latest"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(folder.name)
        fresh.replace(folder.parent / "latest")


class Turn:
    """The right to write a run's record, of one process at a time."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.ended = False
        """Whether the tracker knows how the run ended. Otherwise the note stays, for a later
        command to find."""
        self._lease: Lease | None = None

    def __enter__(self) -> Turn:
        return self

    def __exit__(self, *_: object) -> None:
        if self._lease is not None:
            if self.ended and not self.lost:
                with contextlib.suppress(OSError):  # the folder may be gone
                    (self.folder / OWNER).unlink(missing_ok=True)
            self._lease.release()

    def take(self) -> bool:
        """Whether this process now has the right; another one may."""
        try:
            with writing(self.folder):
                self._lease = take(self.folder / LEASE)
        except Held:
            return False
        for file in self.folder.glob(f"*{ASIDE}"):  # of a process that was killed
            file.unlink(missing_ok=True)
        shutil.rmtree(self.folder / SCRATCH, ignore_errors=True)
        write_json(self.folder / OWNER, asdict(Process.this()))
        return True

    def wait(self, stopping: Stopping) -> None:
        """Take the right as soon as nobody else has it."""
        while not self.take():
            if stopping():
                raise Interrupted(
                    "stopped while waiting for another run of this recipe; all that is finished is "
                    "kept"
                )
            time.sleep(0.5)

    def keep(self) -> None:
        """Take the right again if it is lost. OutOfOrder if another process has it."""
        if self.lost and not self.take():
            raise OutOfOrder(
                f"this process was paused or cut off from its files, and {owner(self.folder)} "
                "writes the record of this run now; all that is finished is kept"
            )

    @property
    def lost(self) -> bool:
        """Whether another process has the right that this one had: this one was paused for long,
        say, and is to write nothing."""
        return self._lease is not None and not self._lease.right.valid
