"""Images that are decoded part by part: a decoding that was killed goes on behind the last part
that is whole.

Beside the file of pixels lies a sealed file for each part, written once its pixels are on the disk.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from fw.core.files import sealed

SOURCES = 2000
"""Images in a part: a killed decoding loses no more than these."""

AT_ONCE = 2**24
"""Bytes that are read at once."""


class Hash(Protocol):
    """A checksum as it is made."""

    def update(self, some: bytes, /) -> None: ...


@dataclass
class Part:
    """What was made of some sources that follow each other: so many bytes of pixels, with their
    sha256; the labels of images that were decoded, why others were not, how many are held out, the
    sha256 of every source's bytes, and the depths that are still to be decided."""

    size: int = 0
    sha256: str = ""
    labels: list[int] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    repeats: int = 0
    sources: list[str] = field(default_factory=list)
    largest: dict[str, int] = field(default_factory=dict)

    def keep(self, folder: Path, number: int, images: BinaryIO) -> None:
        """Remember the part, once its pixels cannot be lost."""
        images.flush()
        os.fsync(images.fileno())
        sealed.write(path_of(folder, number), asdict(self))


def kept(folder: Path, number: int, images: BinaryIO, pixels: Hash) -> Part | None:
    """A part whose pixels come next in the file, if they are as they were written; `pixels` is
    updated with them. Else the file is cut off here, to be written to."""
    start, values = images.tell(), sealed.read(path_of(folder, number))
    if values is not None:
        part, own = Part(**values), hashlib.sha256()
        add(images, part.size, own)
        if own.hexdigest() == part.sha256:
            images.seek(start)
            add(images, part.size, pixels)
            return part
    images.seek(start)
    images.truncate()
    return None


def add(images: BinaryIO, size: int, pixels: Hash) -> None:
    """Update a checksum with the next bytes of the file, as far as it has them."""
    for start in range(0, size, AT_ONCE):
        pixels.update(images.read(min(AT_ONCE, size - start)))


def forget(folder: Path) -> None:
    """Remove what is remembered of parts; the whole is there."""
    for path in folder.glob("part-*.json"):
        path.unlink()


def path_of(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06d}.json"
