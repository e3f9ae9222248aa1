"""Files that users bring, weights and settings: what enters the keys is their content, not where they lie."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any


def sha256(path: Path) -> str:
    """The sha256 of the file's content, in hex, or OSError; a file that has not changed is read once."""
    found = path.stat()
    return remembered_sha256(path, found.st_size, found.st_mtime_ns)


@functools.cache
def remembered_sha256(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
