"""The sha256 of each file of a folder, remembered from one command to the next: where a few files
have changed, only these are read again.

A text file for each folder, `<cache>/digests/<sha256 of its path>`: a line with the checksum of the
rest, and JSON. One that is damaged counts as absent.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from fw.core.files.durable import write_text
from fw.plugins.datasets.depth import Deep

RULE = 1
"""Raise it when other facts of files are to be remembered."""


class Known(NamedTuple):
    """What is known of a file: its state (size, times of change) then; its sha256 as hexadecimal
    digits; its depth, if it is an image with 16 bits per channel."""

    state: tuple[int, int, int]
    sha256: str
    deep: Deep | None


def read(cache: Path, folder: str) -> dict[str, Known]:
    """What is remembered of a folder's files, by their names."""
    try:
        checksum, _, text = memory_of(cache, folder).read_text(encoding="utf-8").partition("\n")
        if checksum != sha256(text):
            return {}
        values = json.loads(text)
        if values["rule"] != RULE:
            return {}
        return {
            name: Known((size, modified, changed), digest, Deep(*deep) if deep else None)
            for name, (size, modified, changed, digest, deep) in values["files"].items()
        }
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def write(cache: Path, folder: str, files: Mapping[str, Known]) -> None:
    """Remember this of a folder's files. Where several processes do it at once, one's stays."""
    entries = {name: [*known.state, known.sha256, known.deep] for name, known in files.items()}
    text = json.dumps({"rule": RULE, "files": entries})
    memory = memory_of(cache, folder)
    memory.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):  # another one was faster
        write_text(memory, f"{sha256(text)}\n{text}")


def forget(cache: Path, folders: Iterable[str]) -> None:
    for folder in folders:
        memory_of(cache, folder).unlink(missing_ok=True)


def memory_of(cache: Path, folder: str) -> Path:
    return cache / "digests" / hashlib.sha256(os.fsencode(folder)).hexdigest()


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
