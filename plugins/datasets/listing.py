"""The files of a folder and the fingerprint of what is in them, which is the same wherever the folder lies."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from fw.core.errors import FwError, MissingFile
from fw.plugins.datasets.progress import progress

AT_ONCE = 256
"""Files handed to the threads at a time."""

DIGITS = 64
"""Of a sha256 in hexadecimal; a power cut may leave fewer."""


class File(NamedTuple):
    """A file, its name relative to the folder with `/` in it, and what changes when it is written to."""

    name: str
    path: str
    size: int
    modified: int
    changed: int


def listed(folder: Path, endings: tuple[str, ...] = ("",)) -> list[File]:
    """The files in a folder and below, sorted by name: those with one of the endings (in any case). Hidden ones not.

    Links are followed, but not back to a folder that holds them.
    """
    found: list[File] = []
    for here, below, files in os.walk(folder, followlinks=True, onerror=refuse):
        real = Path(here).resolve()
        below[:] = [name for name in below if not name.startswith(".") and not loops(Path(here, name), real)]
        for name in files:
            if name.lower().endswith(endings) and not name.startswith("."):
                path = f"{here}/{name}"
                facts = looked_at(path)
                relative = path[len(str(folder)) + 1 :]
                found.append(File(relative, path, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns))
    return sorted(found)


def loops(path: Path, holder: Path) -> bool:
    return path.is_symlink() and holder.is_relative_to(path.resolve())


def looked_at(path: str) -> os.stat_result:
    try:
        return os.stat(path)  # noqa: PTH116 - a Path per file takes most of the time
    except OSError as error:
        raise unreadable(path, error) from None


def refuse(error: OSError) -> None:
    raise unreadable(error.filename, error) from None


def unreadable(path: Path | str, error: OSError) -> MissingFile:
    return MissingFile(f"{path} cannot be read: {error.strerror or error}")


def fingerprint(files: Sequence[File], cache: Path) -> str:
    """The sha256 of the files' names and bytes, as hexadecimal digits.

    Every byte is read once. The answer is remembered in `cache` for as long as no file's place, size or time of change
    is another.
    """
    seen = hashlib.sha256()
    for file in files:
        seen.update(os.fsencode("\0".join(map(str, file))) + b"\n")
    memory = cache / "fingerprints" / seen.hexdigest()
    try:
        found = memory.read_text(encoding="utf-8") if memory.exists() else ""
        if len(found) != DIGITS:
            found = read_through(files)
            memory.parent.mkdir(parents=True, exist_ok=True)
            temporary = memory.with_suffix(f".{os.getpid()}")
            temporary.write_text(found, encoding="utf-8")
            temporary.replace(memory)
    except OSError as error:
        raise unwritable(cache, error) from None
    return found


def unwritable(cache: Path, error: OSError) -> FwError:
    return FwError(
        f"cannot write to {cache}: {error.strerror or error}; give another folder as the dataset's `cache` or in "
        "$FW_CACHE_DIR"
    )


def cache_folder(given: Path | None) -> Path:
    """Where what was found out about files is kept: `given`, $FW_CACHE_DIR or ~/.cache/fw."""
    return (given or Path(os.environ.get("FW_CACHE_DIR") or "~/.cache/fw")).expanduser().absolute()


def read_through(files: Sequence[File]) -> str:
    """The sha256 of the names and the sha256 of each file."""
    together = hashlib.sha256()
    with progress("reading files", len(files)) as advance, ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(files), AT_ONCE):
            few = files[start : start + AT_ONCE]
            for file, found in zip(few, pool.map(checksum, few), strict=True):
                together.update(os.fsencode(file.name) + b"\0" + found)
            advance(len(few))
    return together.hexdigest()


def checksum(file: File) -> bytes:
    try:
        with Path(file.path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise unreadable(file.path, error) from None


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_held_out(name: str, share: float) -> bool:
    """Whether a name is of the share that is kept for the test split; other names have no say in it."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8]) < share * 2**64
