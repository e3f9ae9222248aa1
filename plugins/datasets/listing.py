"""The files of a folder and the fingerprint of their content, wherever the folder lies."""

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
"""Raise it when other facts of files are to be remembered: then remembered facts are made again."""


class File(NamedTuple):
    """A file: its name relative to the folder, with `/`; what writing to it changes; its inode."""

    name: str
    path: str
    size: int
    modified: int
    changed: int
    inode: tuple[int, int]


class Listing(NamedTuple):
    """The files of a folder by name; what has a file's name but is no regular file; how many more
    names the files have."""

    files: list[File]
    strange: list[str]
    again: int


class Facts(NamedTuple):
    """The sha256 of the files' names and bytes, as hexadecimal digits; the largest value in each
    group of images with 16 bits per channel (fw.plugins.datasets.depth)."""

    fingerprint: str
    largest: dict[str, int]


def listed(folder: Path, endings: tuple[str, ...] = ("",), once: bool = True) -> Listing:
    """The files in a folder and below, sorted by name: those with one of the endings (in any case),
    without hidden ones.

    Links are followed, but not back to a folder that holds them, and no folder is walked twice.
    With `once`, a file that has several names has the first of those that are no links. What is
    neither file nor folder is left out: opening a pipe would wait for somebody to write into it.
    """
    files: list[File] = []
    strange: list[str] = []
    for here, names in walked(folder):
        for name in sorted(names):
            if name.lower().endswith(endings) and not name.startswith("."):
                path = f"{here}/{name}"
                facts = file_status(path)
                relative = path[len(str(folder)) + 1 :]
                if stat.S_ISREG(facts.st_mode):
                    inode = facts.st_dev, facts.st_ino
                    files.append(
                        File(
                            relative,
                            path,
                            facts.st_size,
                            facts.st_mtime_ns,
                            facts.st_ctime_ns,
                            inode,
                        )
                    )
                else:
                    strange.append(
                        f"{relative} ({STRANGE.get(stat.S_IFMT(facts.st_mode), 'no file')})"
                    )
    kept = under_one_name(files) if once else files
    return Listing(sorted(kept), sorted(strange), len(files) - len(kept))


STRANGE = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def walked(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The folder and those below, each once, with the names of what is in it. A folder's own name
    comes before those of links to it.

    The order is that of the names, whatever the file system's is.
    """
    done: set[tuple[int, int]] = set()
    waiting = [str(folder)]
    while waiting:
        for here, below, names in os.walk(waiting.pop(0), onerror=refuse):
            facts = file_status(here)
            if facts.st_ino and (facts.st_dev, facts.st_ino) in done:
                below.clear()
                continue
            done.add((facts.st_dev, facts.st_ino))
            real = Path(here).resolve()
            below[:] = sorted(name for name in below if not name.startswith("."))
            links = [name for name in below if Path(here, name).is_symlink()]
            below[:] = [name for name in below if name not in links]
            waiting += [
                f"{here}/{name}"
                for name in links
                if not real.is_relative_to(Path(here, name).resolve())
            ]
            yield here, names


def under_one_name(files: Sequence[File]) -> list[File]:
    """Each file once, from files in the order of the walk. Some file systems have no inode numbers;
    their files all stay."""
    kept: dict[tuple[int, int], File] = {}
    for file in files:
        first = kept.setdefault(file.inode, file)
        if first is not file and Path(first.path).is_symlink() and not Path(file.path).is_symlink():
            kept[file.inode] = file
    return [file for file in files if not file.inode[1] or kept[file.inode] is file]


def file_status(path: str) -> os.stat_result:
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
    return known_facts(files, cache).fingerprint


def known_facts(files: Sequence[File], cache: Path) -> Facts:
    """The facts of the files. Every byte is read once.

    The answer is remembered in `cache` as long as place, size and times of change of all files stay
    the same. Answers of earlier versions have no checksum and are made again: one wrong bit in them
    would mean another data set.
    """
    memory = memory_of(files, cache)
    values = sealed.read(memory)
    if values is None or values.get("rule") != RULE:
        facts = read_through(files)
        try:
            memory.parent.mkdir(parents=True, exist_ok=True)
            sealed.write(memory, {"rule": RULE, **facts._asdict()})
        except OSError as error:
            raise unwritable(cache, error) from None
        return facts
    return Facts(values["fingerprint"], values["largest"])


def memory_of(files: Sequence[File], cache: Path) -> Path:
    """The file that remembers the facts."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(os.fsencode("\0".join(map(str, file[:-1]))) + b"\n")
    return cache / "fingerprints" / digest.hexdigest()


def unwritable(cache: Path, error: OSError) -> FwError:
    return FwError(
        f"cannot write to {cache}: {error.strerror or error}; give another folder as the dataset's "
        "`cache` or in $FW_CACHE_DIR"
    )


def cache_folder(given: Path | None) -> Path:
    """The folder for facts and decoded images: `given`, $FW_CACHE_DIR or ~/.cache/fw."""
    return (given or Path(os.environ.get("FW_CACHE_DIR") or "~/.cache/fw")).expanduser().absolute()


def read_through(files: Sequence[File]) -> Facts:
    """Reads every file; the fingerprint is the sha256 over each file's name and sha256."""
    digest, largest = hashlib.sha256(), dict[str, int]()
    with (
        strict_pillow(),
        progress("reading files", len(files)) as advance,
        ThreadPoolExecutor(cores()) as pool,
    ):
        for start in range(0, len(files), AT_ONCE):
            few = files[start : start + AT_ONCE]
            for file, (checksum, deep) in zip(few, pool.map(read_file, few), strict=True):
                digest.update(fingerprint_entry(file.name, checksum))
                if deep is not None:
                    largest[deep.group] = max(deep.largest, largest.get(deep.group, 0))
            advance(len(few))
    return Facts(digest.hexdigest(), largest)


def fingerprint_entry(name: str, checksum: bytes) -> bytes:
    """What a file adds to the fingerprint."""
    return os.fsencode(name) + b"\0" + checksum


def read_file(file: File) -> tuple[bytes, Deep | None]:
    """The file's sha256, and its depth if it is an image with 16 bits per channel."""
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
    """Whether a name is in the share for the test split, whatever the other names are."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8]) < share * 2**64
