"""Images that are decoded once and then mapped into memory: loading them again costs nothing, whoever does it.

A folder `<cache>/decoded/<key>` holds images.u8 (N, C, H, W), labels.i64 (N,) and facts.json. It is written under
another name and renamed when it is whole, under a lock, so a killed process leaves nothing that is taken for finished
and two processes do not get in each other's way. It may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from fw.core.errors import FwError, MissingFile
from fw.plugins.datasets.listing import cores, unreadable, unwritable
from fw.plugins.datasets.picture import picture, strict_pillow
from fw.plugins.datasets.progress import progress

VERSION = 1
"""Raise it when decoding gives other pixels."""

AT_ONCE = 64
"""Images in flight per thread."""

NAMED = 3
"""How many of the files that could not be decoded are named."""


class Source(NamedTuple):
    """An image still encoded, as bytes or in a file; what to call it; its label."""

    name: str
    data: bytes | Path
    label: int = 0


def decoded(
    sources: Callable[[], Iterable[Source]],
    count: int | None,
    shape: tuple[int, int, int],
    settings: Any,
    cache: Path,
) -> tuple[Tensor, Tensor]:
    """uint8 images (N, C, H, W) on the file, and int64 labels (N,); decoded now, if nobody has done it yet.

    `settings` is JSON that decides, with the shape, what the sources are. `count` is how many there are, if known. Who
    writes into the images writes into a copy of his own.
    """
    import PIL

    told = json.dumps([VERSION, PIL.__version__, shape, settings], sort_keys=True)
    folder = cache / "decoded" / hashlib.sha256(told.encode()).hexdigest()[:32]
    if not whole(folder, shape):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                if not whole(folder, shape):  # nobody has done it meanwhile
                    check_room(folder.parent, count, shape)
                    decode_into(folder, sources(), count, shape)
        except OSError as error:
            raise unwritable(cache, error) from error
    return mapped(folder, shape)


def whole(folder: Path, shape: tuple[int, int, int]) -> bool:
    """Whether the images are there, to the last byte: a map of a file that is cut off kills the process."""
    try:
        count = json.loads((folder / "facts.json").read_text(encoding="utf-8"))["count"]
        sizes = [(folder / name).stat().st_size for name in ("images.u8", "labels.i64")]
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return sizes == [count * int(np.prod(shape)), count * 8]


def mapped(folder: Path, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    labels = np.fromfile(folder / "labels.i64", dtype="<i8").astype(np.int64)
    images = np.memmap(folder / "images.u8", dtype=np.uint8, mode="c", shape=(len(labels), *shape))
    return torch.from_numpy(images), torch.from_numpy(labels)


def check_room(folder: Path, count: int | None, shape: tuple[int, int, int]) -> None:
    wanted, free = (count or 0) * int(np.prod(shape)), shutil.disk_usage(folder).free
    if wanted > free:
        raise FwError(
            f"{count:,} decoded images take {wanted / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB left; give "
            "another folder as the dataset's `cache` or in $FW_CACHE_DIR"
        )


def decode_into(folder: Path, sources: Iterable[Source], count: int | None, shape: tuple[int, int, int]) -> None:
    """Make the folder in one rename; what a killed process left under its other name is thrown away."""
    writing = folder.with_name(f"{folder.name}.writing")
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir()
    with (writing / "images.u8").open("wb") as images:
        labels, failed = decode(sources, count, shape, images)
        to_disk(images)
    with (writing / "labels.i64").open("wb") as file:
        file.write(np.asarray(labels, dtype="<i8").tobytes())
        to_disk(file)
    if not labels:
        name, reason = next(iter(failed.items()), ("", "there are none"))
        raise MissingFile(f"none of {len(failed):,} images could be decoded; {name}: {reason}")
    with (writing / "facts.json").open("wb") as file:
        file.write(json.dumps({"count": len(labels), "failed": failed}, indent=1).encode())
        to_disk(file)
    shutil.rmtree(folder, ignore_errors=True)  # what was damaged later
    writing.replace(folder)
    if failed:
        tell(failed, len(labels) + len(failed), folder)


def decode(
    sources: Iterable[Source], count: int | None, shape: tuple[int, int, int], images: BinaryIO
) -> tuple[list[int], dict[str, str]]:
    """Append the pixels of each source to the file, in order; returns the labels, and what failed with the reasons."""
    labels: list[int] = []
    failed: dict[str, str] = {}
    with strict_pillow(), progress("decoding images", count) as advance, ThreadPoolExecutor(cores()) as pool:
        for few in chunks(sources, AT_ONCE * cores()):
            for source, made in zip(few, pool.map(partial(attempt, shape=shape), few), strict=True):
                if isinstance(made, str):
                    failed[source.name] = made
                else:
                    images.write(made.tobytes())
                    labels.append(source.label)
            advance(len(few))
    return labels, failed


def attempt(source: Source, shape: tuple[int, int, int]) -> NDArray[np.uint8] | str:
    """The pixels, or why there are none. A file that cannot be read at all is no matter of decoding, and raises."""
    try:
        data = source.data if isinstance(source.data, bytes) else source.data.read_bytes()
    except OSError as error:
        raise unreadable(source.name, error) from None
    try:
        return picture(data, shape)
    except MemoryError:
        raise
    except Exception as error:  # whatever Pillow makes of damaged bytes
        return f"{error}".partition("\n")[0] or type(error).__name__


def chunks(sources: Iterable[Source], size: int) -> Iterator[Sequence[Source]]:
    remaining = iter(sources)
    while few := list(islice(remaining, size)):
        yield few


def to_disk(file: BinaryIO) -> None:
    """A rename may reach the disk before what was written does."""
    file.flush()
    os.fsync(file.fileno())


def tell(failed: dict[str, str], count: int, folder: Path) -> None:
    """Said once, when they are decoded."""
    more = f", ... (all in {folder / 'facts.json'})" if len(failed) > NAMED else ""
    names = ", ".join(islice(failed, NAMED))
    print(f"{len(failed):,} of {count:,} files could not be decoded: {names}{more}", file=sys.stderr, flush=True)
