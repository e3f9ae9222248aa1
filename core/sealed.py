"""JSON files with their own checksum in them: what was remembered and is damaged is forgotten, not
believed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fw.core.durable import put

SEAL = "seal"
"""The key of the sha256 of all the rest."""


def write(path: Path, values: Mapping[str, Any]) -> None:
    """Write the file whole and to the disk; several processes may at once. No key may be called
    `seal`."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps({**values, SEAL: seal(values)}, indent=1), encoding="utf-8")
    put(temporary, path)


def read(path: Path) -> dict[str, Any] | None:
    """The values as they were written; None if there is no such file or it was not written here as
    it is."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return values if values.pop(SEAL) == seal(values) else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def seal(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
