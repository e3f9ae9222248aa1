"""Targets that are there whole or not at all: written aside, and renamed in the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fw.core.files.durable import aside, put


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Where to write the file; it gets its name, and replaces one of that name, if all went
    well."""
    temporary = aside(path)
    try:
        yield temporary
        put(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """The same with a folder, which replaces an empty one at the most."""
    temporary = aside(path)
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    try:
        temporary.mkdir()
        yield temporary
        if hasattr(os, "sync"):
            os.sync()  # once for thousands of files
        put(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
