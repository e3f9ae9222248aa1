"""Who writes a run's record, and whether that process is still alive."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from fw.core.machine.processes import Process, boot_id

OWNER = ".owner.json"
"""The note in a run's folder, there for as long as somebody writes it."""


def owner(folder: Path) -> str:
    """Whoever has the right, in words."""
    try:
        return str(noted(folder / OWNER))
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"


def noted(note: Path) -> Process:
    return Process.noted(json.loads(note.read_text(encoding="utf-8")))


def abandoned(out: Path) -> Iterator[Path]:
    """The run folders below `out` whose owner has died on this machine; those of other machines
    are left alone."""
    for note in sorted(out.glob(f"*/*/{OWNER}")):
        if note.parent.is_symlink():  # `latest` is one of the others
            continue
        try:
            process = noted(note)
        except (OSError, ValueError, LookupError, TypeError):
            continue
        if process.dead or (process.here and process.boot != boot_id()):
            yield note.parent
