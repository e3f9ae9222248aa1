"""Write files that are there whole or not at all, also after a power cut: written aside, synced and
renamed.

A rename may reach the disk before the file's content does, and a folder later than the files in
it. So the file is synced before it is renamed, and its folder after.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

ASIDE = ".writing"
"""The end of the name of a file that is not yet whole."""


def aside(path: Path, writer: int = 0) -> Path:
    """The path beside a file where it is written until it is whole; nobody reads it there. Several
    writers of one file have numbers, so that each has a path of its own."""
    return path.with_name(f"{path.name}.{writer}{ASIDE}" if writer else path.name + ASIDE)


def put(temporary: Path, path: Path) -> None:
    """Give a file or a folder that was written aside its final name."""
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


def write_text(path: Path, text: str, writer: int = 0) -> None:
    temporary = aside(path, writer)
    temporary.write_text(text, encoding="utf-8")
    put(temporary, path)


def write_json(path: Path, values: Any) -> None:
    write_text(path, json.dumps(values, indent=1))


def sync(path: Path) -> None:
    """Wait until a file's bytes or a folder's entries are on the disk. Windows cannot open
    folders."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
