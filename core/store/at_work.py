"""Which runs are at work on a store, and on which stages: each leaves a note there for as long as
it lasts, with a lease that says whether it still does."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fw.core.files.durable import write_json
from fw.core.machine.leases import Claim, claims, now, take
from fw.core.messages.plain import writing
from fw.core.store.store import LEASES, Store

if TYPE_CHECKING:
    from fw.core.plan.graph import Plan

NOTES = "runs"
"""The folder of the notes, beside the leases of stages."""

NOTE = "note.json"

SILENT = 3600.0
"""Seconds without a sign of life after which a run of another machine counts as ended."""


@dataclass(frozen=True)
class AtWork:
    """A run that has left a note, and may have ended since."""

    note: Path
    recipe: str
    stages: Mapping[str, str]
    """Titles of what it does, or has found done, by id."""
    uses: frozenset[str]
    """All stages that it reads or writes."""
    began: float
    """By its machine's clock."""
    claim: Claim
    silent: float
    """Seconds since it showed life."""

    @property
    def ended(self) -> bool:
        """Whether its process is known to have ended; of another machine, believed to."""
        process = self.claim.process
        if process is not None and process.here:
            return process.dead or process.boot != process.this().boot
        return self.silent > SILENT


@dataclass
class Note:
    """What a run leaves while it lasts."""

    folder: Path
    recipe: str
    began: float
    stages: Mapping[str, str]
    uses: set[str]

    def use(self, plan: Plan) -> None:
        """From now on, the run uses the stages of this plan, too."""
        self.uses |= plan.stages.keys()
        self.write()

    def write(self) -> None:
        facts = {
            "recipe": self.recipe,
            "began": self.began,
            "stages": self.stages,
            "uses": sorted(self.uses),
        }
        write_json(self.folder / NOTE, facts)


@contextlib.contextmanager
def at_work(store: Store, recipe: str, plan: Plan, everything: Plan) -> Iterator[Note]:
    """Say in the store that this process does the stages of a plan, and uses `everything`.

    It comes before the first look at the store: whoever removes what nobody uses looks for notes
    after that.
    """
    with writing(store.root / LEASES):
        forget_ended(store)
        folder = store.root / LEASES / NOTES / secrets.token_hex(8)
        lease = take(folder)
        titles = {stage.id: stage.title for stage in plan.stages.values()}
        note = Note(folder, recipe, time.time(), titles, set(everything.stages))
        note.write()
    try:
        yield note
    finally:
        with contextlib.suppress(OSError):
            (folder / NOTE).unlink(missing_ok=True)
        lease.release()
        with contextlib.suppress(OSError):
            folder.parent.rmdir()  # unless others are at work


def notes(store: Store) -> Iterator[AtWork]:
    """The runs that have left a note, the earliest first; those that have ended, too."""
    root = store.root / LEASES / NOTES
    found = []
    for folder in root.iterdir() if root.is_dir() else ():
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            found.append(read(folder))
    yield from sorted(found, key=lambda each: each.began)


def read(folder: Path) -> AtWork:
    facts: dict[str, Any] = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    _, claim = max(claims(folder).items())
    return AtWork(
        folder / NOTE,
        str(facts["recipe"]),
        {str(stage): str(title) for stage, title in facts["stages"].items()},
        frozenset(map(str, facts["uses"])),
        float(facts["began"]),
        claim,
        silence(claim, folder),
    )


def silence(claim: Claim, folder: Path) -> float:
    """Seconds since a lease showed life, by the clock of its file system; by this machine's, where
    nothing can be written."""
    try:
        return max(0.0, now(folder) - claim.fresh)
    except OSError:
        return max(0.0, time.time() - claim.fresh)


def forget_ended(store: Store) -> None:
    """Remove the notes of runs that have ended without doing so, as after a power cut."""
    for each in notes(store):
        if each.ended:
            for file in (each.note, *each.note.parent.glob("*.lease")):
                with contextlib.suppress(OSError):
                    file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                each.note.parent.rmdir()
