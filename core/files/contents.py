"""What is in the files of weights and settings that users bring; keys depend on their content, not
on their place.

A file that is not what its name says is refused with what it is instead, before a library stumbles
over it.
"""

from __future__ import annotations

import functools
import json
import zipfile
from pathlib import Path
from typing import Any

from fw.core.errors import MissingFile
from fw.core.files.unfinished import checksum


def sha256(path: Path) -> str:
    """The sha256 of the file's content, in hex, or OSError. A file that has not changed is read
    once."""
    status = path.stat()
    return remembered_sha256(path, status.st_size, status.st_mtime_ns)


@functools.cache
def remembered_sha256(path: Path, size: int, modified: int) -> str:
    return checksum(path)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


LFS = b"version https://git-lfs.github.com/"
PAGES = (b"<!doctype html", b"<html")
BEGINNING = 512
"""The bytes at the beginning of a file that are examined."""
ZIP = b"PK\x03\x04"
"""How a file that torch.save wrote begins, since torch 1.6."""


def genuine(path: Path, whose: str = "") -> Path:
    """The path of a file; MissingFile, its message beginning with `whose`, if it is not what its
    name says."""
    try:
        reason = mismatch(path)
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    if reason:
        raise MissingFile(f"{whose}{path} {reason}")
    return path


def mismatch(path: Path) -> str | None:
    """Why a file of weights or settings is not what its name says, as far as its beginning and
    size show; or None."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(BEGINNING)
    if not size:
        return "is empty (0 bytes): copy or download it again"
    if reason := stand_in(start):
        return reason
    if path.suffix == ".safetensors":
        return safetensors_mismatch(path, start, size)
    if path.suffix == ".json":
        return None
    if start[8:10] == b'{"' and int.from_bytes(start[:8], "little") <= size:
        return "is in the format safetensors: let its name end in .safetensors"
    if start.startswith(ZIP) and not zipfile.is_zipfile(path):
        return f"is cut short at {size} bytes: copy or download it again"
    return None


def stand_in(data: bytes) -> str | None:
    """What is there in place of the file, as far as its first bytes show; None if it may be the
    file."""
    start = data[:BEGINNING]
    if start.startswith(LFS):
        return "is a Git LFS pointer, not the file: run `git lfs pull` in its repository"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(PAGES):
        return "is a web page (HTML), not the file: open the address that it came from in a browser"
    return None


def safetensors_mismatch(path: Path, start: bytes, size: int) -> str | None:
    """The same for safetensors: 8 bytes give the length of the JSON that gives the places of the
    tensors."""
    if start[8:9] not in (b"{", b"") and start.startswith(
        (ZIP, b"\x80")
    ):  # \x80 also begins a length
        return "is what torch.save writes, not safetensors: let its name end in .pt"
    if size < 8 or start[8:9] not in (b"{", b""):
        return "is not in the format safetensors, whatever its name says"
    length = int.from_bytes(start[:8], "little")
    if size < 8 + length:
        return f"is cut short at {size} bytes: copy or download it again"
    with path.open("rb") as file:
        header = file.read(8 + length)[8:]
    try:
        ends = [
            each["data_offsets"][1]
            for name, each in json.loads(header).items()
            if name != "__metadata__"
        ]
        expected = 8 + length + max(ends, default=0)
    except (ValueError, LookupError, TypeError, AttributeError):
        return "is not in the format safetensors, whatever its name says"
    return (
        f"is cut short, {size} of {expected} bytes: copy or download it again"
        if size < expected
        else None
    )
