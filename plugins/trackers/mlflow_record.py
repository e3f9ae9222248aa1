"""What an arm's run in MLflow already holds: a tag with a digest of each call that filled it.

An arm that has ended well is not logged again, call by call, when its run is opened once more: a
call whose digest is in the tag changes nothing. The first call that is new opens the record, and
the tag is written anew when the arm ends.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

TAG = "fw.logged"

LENGTH = 12
"""Hexadecimal digits of a digest."""

MOST = 500
"""Digests that a tag can hold. An arm has a handful; one with more is logged again as a whole."""


class Record:
    """The digests of an arm's calls: those `before` it was opened, and those since, the last of
    each topic."""

    def __init__(self, tag: str = ""):
        self.before = frozenset(tag.split())
        self.since: dict[str, str] = {}

    def holds(self, digest: str) -> bool:
        return digest in self.before

    def add(self, topic: str, digest: str) -> None:
        self.since[topic] = digest

    @property
    def tag(self) -> str:
        digests = sorted(set(self.since.values()))
        return " ".join(digests) if len(digests) <= MOST else ""


def of_values(topic: str, records: Iterable[Mapping[str, float]]) -> tuple[str, str]:
    """The topic, which is the names that the records have, and a digest of the values."""
    listed = list(records)
    names = sorted({name for record in listed for name in record})
    return f"{topic} {names}", digest([topic, listed])


def of_files(paths: Iterable[Path]) -> tuple[str, str]:
    listed = list(paths)
    names = [path.name for path in listed]
    contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in listed]
    return f"files {names}", digest(["files", names, contents])


def digest(what: Any) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:LENGTH]
