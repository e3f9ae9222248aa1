"""Files of unfinished work that a later try reads back. Each has its sha256 in a file beside it,
the voucher, and is used only if that is right.

The voucher is on the disk before the file gets its name. It holds the checksum of the file and of
the one that it replaces, so a crash at any moment leaves a file with a right checksum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from fw.core.files.durable import aside, put, write_text

VOUCHER = ".sha256"
"""The end of a voucher's name."""


def keep(path: Path, write: Callable[[Path], object], writer: int = 0) -> None:
    """Make or replace a file, whole or not at all; `write` gets the path to write to. Members of a
    team that make the same file at once are different writers."""
    temporary = aside(path, writer)
    write(temporary)
    write_text(voucher(path), "\n".join([checksum(temporary), *vouched(path)[:1]]), writer)
    put(temporary, path)


def intact(path: Path) -> bool:
    """Whether the file is as it was kept."""
    try:
        return checksum(path) in vouched(path)
    except OSError:
        return False


def vouched(path: Path) -> list[str]:
    """The checksums that the file may have: as it was kept last, and as it was before."""
    try:
        return voucher(path).read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError):
        return []


def discard(path: Path) -> None:
    path.unlink(missing_ok=True)
    voucher(path).unlink(missing_ok=True)


def voucher(path: Path) -> Path:
    return path.with_name(path.name + VOUCHER)


def checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
