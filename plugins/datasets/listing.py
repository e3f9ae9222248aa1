"""The files of a folder and the fingerprint of what is in them, which is the same wherever the folder lies."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from fw.core.errors import FwError, MissingFile
from fw.core.files import sealed
from fw.core.machine.cores import cores
from fw.plugins.datasets.depth import START, Deep, deep, may_be_deep
from fw.plugins.datasets.picture import strict_pillow
from fw.plugins.datasets.progress import progress

AT_ONCE = 256
"""Files handed to the threads at a time."""

RULE = 1
"""Raise it when other things are to be remembered of files: what is remembered is found out again.
"""


class File(NamedTuple):
    """A file, its name relative to the folder with `/` in it, what changes when it is written to,
    and which it is."""

    name: str
    path: str
    size: int
    modified: int
    changed: int
    inode: tuple[int, int]


class Listing(NamedTuple):
    """The files of a folder by name; what has a file's name and is none; how many more names the
    files have."""

    files: list[File]
    strange: list[str]
    again: int


class Facts(NamedTuple):
    """The sha256 of the files' names and bytes, as hexadecimal digits; the largest value in each
    group of images with 16 bits per channel (fw.plugins.datasets.depth)."""

    fingerprint: str
    largest: dict[str, int]


def listed(folder: Path, endings: tuple[str, ...] = ("",), once: bool = True) -> Listing:
    """The files in a folder and below, sorted by name: those with one of the endings (in any case).
    Hidden ones not.

    Links are followed, but not back to a folder that holds them, and no folder is walked twice.
    With `once`, a file that has several names has the first of those that are no links. What is
    neither file nor folder is left out: to open a pipe waits for somebody to write into it.
    """
    found: list[File] = []
    strange: list[str] = []
    for here, names in walked(folder):
        for name in sorted(names):
            if name.lower().endswith(endings) and not name.startswith("."):
                path = f"{here}/{name}"
                facts = looked_at(path)
                relative = path[len(str(folder)) + 1 :]
                if stat.S_ISREG(facts.st_mode):
                    inode = facts.st_dev, facts.st_ino
                    found.append(File(relative, path, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, inode))
                else:
                    strange.append(f"{relative} ({STRANGE.get(stat.S_IFMT(facts.st_mode), 'no file')})")
    kept = without_others_names(found) if once else found
    return Listing(sorted(kept), sorted(strange), len(found) - len(kept))


STRANGE = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def walked(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The folder and those below with the names of what is in them; each once, by its own name
    before those of links.

    The order is that of the names, whatever the file system's is.
    """
    done: set[tuple[int, int]] = set()
    waiting = [str(folder)]
    while waiting:
        for here, below, names in os.walk(waiting.pop(0), onerror=refuse):
            facts = looked_at(here)
            if facts.st_ino and (facts.st_dev, facts.st_ino) in done:
                below.clear()
                continue
            done.add((facts.st_dev, facts.st_ino))
            real = Path(here).resolve()
            below[:] = sorted(name for name in below if not name.startswith("."))
            links = [name for name in below if Path(here, name).is_symlink()]
            below[:] = [name for name in below if name not in links]
            waiting += [f"{here}/{name}" for name in links if not real.is_relative_to(Path(here, name).resolve())]
            yield here, names


def without_others_names(found: Sequence[File]) -> list[File]:
    """Each file once, of files in the order in which they were found. Some file systems do not
    number their files."""
    kept: dict[tuple[int, int], File] = {}
    for file in found:
        first = kept.setdefault(file.inode, file)
        if first is not file and Path(first.path).is_symlink() and not Path(file.path).is_symlink():
            kept[file.inode] = file
    return [file for file in found if not file.inode[1] or kept[file.inode] is file]


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
    """The sha256 of the files' names and bytes, as hexadecimal digits."""
    return known(files, cache).fingerprint


def known(files: Sequence[File], cache: Path) -> Facts:
    """What is to be known of the files. Every byte is read once.

    The answer is remembered in `cache` for as long as no file's place, size or time of change is
    another. What earlier versions remembered has no checksum, and is found out again: one wrong bit
    of it would be another data set.
    """
    memory = memory_of(files, cache)
    values = sealed.read(memory)
    if values is None or values.get("rule") != RULE:
        found = read_through(files)
        try:
            memory.parent.mkdir(parents=True, exist_ok=True)
            sealed.write(memory, {"rule": RULE, **found._asdict()})
        except OSError as error:
            raise unwritable(cache, error) from None
        return found
    return Facts(values["fingerprint"], values["largest"])


def memory_of(files: Sequence[File], cache: Path) -> Path:
    """Where the answer is remembered."""
    seen = hashlib.sha256()
    for file in files:
        seen.update(os.fsencode("\0".join(map(str, file[:-1]))) + b"\n")
    return cache / "fingerprints" / seen.hexdigest()


def unwritable(cache: Path, error: OSError) -> FwError:
    return FwError(
        f"cannot write to {cache}: {error.strerror or error}; give another folder as the dataset's `cache` or in "
        "$FW_CACHE_DIR"
    )


def cache_folder(given: Path | None) -> Path:
    """Where what was found out about files is kept: `given`, $FW_CACHE_DIR or ~/.cache/fw."""
    return (given or Path(os.environ.get("FW_CACHE_DIR") or "~/.cache/fw")).expanduser().absolute()


def read_through(files: Sequence[File]) -> Facts:
    """Reads every file; the fingerprint is that of the names and the sha256 of each."""
    together, largest = hashlib.sha256(), dict[str, int]()
    with strict_pillow(), progress("reading files", len(files)) as advance, ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(files), AT_ONCE):
            few = files[start : start + AT_ONCE]
            for file, (found, deep) in zip(few, pool.map(looked_into, few), strict=True):
                together.update(signed(file.name, found))
                if deep is not None:
                    largest[deep.group] = max(deep.largest, largest.get(deep.group, 0))
            advance(len(few))
    return Facts(together.hexdigest(), largest)


def signed(name: str, checksum: bytes) -> bytes:
    """What of a file enters the fingerprint."""
    return os.fsencode(name) + b"\0" + checksum


def looked_into(file: File) -> tuple[bytes, Deep | None]:
    """The file's sha256, and what is to be known of an image with 16 bits per channel."""
    try:
        with Path(file.path).open("rb") as stream:
            checksum = hashlib.file_digest(stream, "sha256").digest()
            stream.seek(0)
            if not may_be_deep(stream.read(START)):
                return checksum, None
            stream.seek(0)
            return checksum, deep(stream.read())
    except OSError as error:
        raise unreadable(file.path, error) from None


def is_held_out(name: str, share: float) -> bool:
    """Whether a name is of the share that is kept for the test split; other names have no say in it."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8]) < share * 2**64
