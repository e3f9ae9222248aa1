"""The files of a folder and the fingerprint of their content, wherever the folder lies."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from fw.core.errors import FwError, MissingFile
from fw.core.files import sealed
from fw.core.machine.cores import cores
from fw.plugins.datasets import digests
from fw.plugins.datasets.depth import START, Deep, deep, may_be_deep
from fw.plugins.datasets.digests import Known
from fw.plugins.datasets.picture import strict_pillow
from fw.plugins.datasets.progress import progress
from fw.registry.once import found_once, look_again, once_in_a_look

AT_ONCE = 256
"""Files handed to the threads at a time."""

FINE_TICK, COARSE_TICK = 20_000_000, 2_000_000_000
"""Nanoseconds that may pass without a new time of change: Linux renews its clock for files a
hundred times a second or more often, FAT every other second."""

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

    @property
    def folder(self) -> str:
        return self.path[: -len(self.name)]

    @property
    def state(self) -> tuple[int, int, int]:
        """What writing to it changes."""
        return self.size, self.modified, self.changed

    @property
    def settled(self) -> int:
        """The time in nanoseconds from which on writing to it changes its state for certain.

        Times of change have ticks: what is written in the tick of the last change leaves no trace.
        Where they have no fraction of a second, a tick may be two seconds long.
        """
        last = max(self.modified, self.changed) if os.name == "nt" else self.changed
        return last + (FINE_TICK if last % 1_000_000_000 else COARSE_TICK)


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


@once_in_a_look
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
    """The facts of the files.

    The answer is remembered in `cache` as long as place, size and times of change of all files stay
    the same; where some of them have changed, these are read. Answers of earlier versions have no
    checksum and are made again: one wrong bit in them would mean another data set.
    """
    memory = memory_of(files, cache)
    return found_once((known_facts, memory), lambda: remembered_facts(files, cache, memory))


def remembered_facts(files: Sequence[File], cache: Path, memory: Path) -> Facts:
    values = sealed.read(memory)
    if values is not None and values.get("rule") == RULE:
        return Facts(values["fingerprint"], values["largest"])
    facts, settled = read_through(files, cache)
    if settled:
        try:
            memory.parent.mkdir(parents=True, exist_ok=True)
            sealed.write(memory, {"rule": RULE, **facts._asdict()})
        except OSError as error:
            raise unwritable(cache, error) from None
    return facts


def forget(files: Sequence[File], cache: Path) -> None:
    """Forget all that is remembered of the files, so that they are read again."""
    memory_of(files, cache).unlink(missing_ok=True)
    digests.forget(cache, {file.folder for file in files})
    look_again()


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


def read_through(files: Sequence[File], cache: Path) -> tuple[Facts, bool]:
    """The facts, and whether they can be remembered. Reads the files that are new or have changed.

    The fingerprint is the sha256 over each file's name and sha256.
    """
    wait_for_ticks(files)
    known = of_files(files, cache)
    fresh = [file for file in files if file.name not in known]
    began = time.time_ns()
    with (
        strict_pillow(),
        progress("reading files", len(fresh)) as advance,
        ThreadPoolExecutor(cores()) as pool,
    ):
        for start in range(0, len(fresh), AT_ONCE):
            few = fresh[start : start + AT_ONCE]
            for file, (checksum, deep) in zip(few, pool.map(read_file, few), strict=True):
                known[file.name] = Known(file.state, checksum.hex(), deep)
            advance(len(few))
    unsettled = {file.name for file in fresh if file.settled > began}
    if fresh:
        remember(files, known, unsettled, cache)
    digest, largest = hashlib.sha256(), dict[str, int]()
    for file in files:
        _, checksum_in_hex, deep = known[file.name]
        digest.update(fingerprint_entry(file.name, bytes.fromhex(checksum_in_hex)))
        if deep is not None:
            largest[deep.group] = max(deep.largest, largest.get(deep.group, 0))
    return Facts(digest.hexdigest(), largest), not unsettled


def wait_for_ticks(files: Sequence[File]) -> None:
    """Wait until files that were changed just now are settled; those from the future never are."""
    now = time.time_ns()
    waits = [file.settled - now for file in files if file.changed <= now]
    time.sleep(max(0, *waits, 0) / 1e9)


def of_files(files: Sequence[File], cache: Path) -> dict[str, Known]:
    """What is remembered of those files that are as they were."""
    remembered = digests.read(cache, files[0].folder) if files else {}
    return {
        file.name: known
        for file in files
        if (known := remembered.get(file.name)) is not None and known.state == file.state
    }


def remember(
    files: Sequence[File], known: dict[str, Known], unsettled: set[str], cache: Path
) -> None:
    """Write down what is known of the files, beside what is of others in their folder."""
    folder = files[0].folder
    others = {
        name: entry
        for name, entry in digests.read(cache, folder).items()
        if name not in known and os.path.lexists(folder + name)
    }
    settled = {name: entry for name, entry in known.items() if name not in unsettled}
    try:
        digests.write(cache, folder, {**others, **settled})
    except OSError as error:
        raise unwritable(cache, error) from None


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
