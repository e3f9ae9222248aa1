"""JSON files that hold their own checksum, for remembered facts: a damaged file counts as
absent."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fw.core.files.durable import write_json

SEAL = "seal"
"""The key whose value is the sha256 of all the others."""


def write(path: Path, values: Mapping[str, Any]) -> None:
    """Write the file whole and to the disk. No key may be called `seal`.

    Where several processes write the same file at once, it is enough that one succeeds. If they
    disturb each other, the seal is wrong.
    """
    with contextlib.suppress(FileNotFoundError):  # another one was faster
        write_json(path, stamped(values))


def read(path: Path) -> dict[str, Any] | None:
    """The values as they were written; None if there is no such file or its seal is wrong."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return without_seal(values) if intact(values) else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def stamped(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with their seal, which replaces any that they had."""
    facts = without_seal(values)
    return {**facts, SEAL: seal(facts)}


def intact(values: Mapping[str, Any]) -> bool:
    """Whether the values are as they were sealed."""
    return values[SEAL] == seal(without_seal(values))


def without_seal(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != SEAL}


def seal(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
