"""Images that are decoded once and then mapped into memory: loading them again costs nothing,
whoever does it.

A folder `<cache>/decoded/<key>` holds images.u8 (N, C, H, W), labels.i64 (N,) and facts.json with
their checksums. It is written under another name and renamed when it is whole, under a lock, so a
killed process leaves nothing that is taken for finished and two processes do not get in each
other's way. Each process compares the checksums once before it maps the images; what is damaged is
decoded again. It may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from fw.core.errors import FwError, MissingFile
from fw.core.features.fingerprints import fingerprint_of, fingerprints
from fw.core.files import sealed
from fw.core.files.contents import stand_in
from fw.core.files.durable import put, sync
from fw.core.files.unfinished import checksum
from fw.core.machine.cores import cores
from fw.core.messages.escaping import visible
from fw.plugins.datasets.depth import Deep, Scale, deep, together, whites
from fw.plugins.datasets.listing import signed, unreadable, unwritable
from fw.plugins.datasets.picture import FORMATS, picture, strict_pillow
from fw.plugins.datasets.progress import progress

VERSION = 1
"""Raise it when decoding gives other pixels."""

FACTS, IMAGES, LABELS = "facts.json", "images.u8", "labels.i64"

AT_ONCE = 64
"""Images in flight per thread."""

NAMED = 3
"""How many of the files that could not be decoded are named."""


class Source(NamedTuple):
    """An image still encoded, as bytes or in a file; what to call it; its label."""

    name: str
    data: bytes | Path
    label: int = 0


class Check(Protocol):
    """Raises MissingFile if the fingerprint is not that of the files that were asked for."""

    def __call__(self, fingerprint: str, /) -> None: ...


@dataclass(frozen=True)
class Request:
    """What is to be decoded and how.

    `settings` is JSON that decides, with the shape, what the sources are. `count` is how many there
    are, if known. Without a `scale` nobody has looked at the values of images with 16 bits per
    channel: those that need one are refused. `check` is called with the fingerprint of what was
    decoded. Images whose digests are in `unwanted` are left out, of which `unwanted_key` is what
    decides them.
    """

    sources: Callable[[], Iterable[Source]]
    count: int | None
    shape: tuple[int, int, int]
    settings: Any
    scale: Scale | None = None
    check: Check | None = None
    unwanted: Callable[[], Collection[bytes]] = tuple
    unwanted_key: str | None = None

    @property
    def key(self) -> str:
        import PIL

        more: dict[str, Any] = {}
        scale = self.scale or Scale()
        if scale != Scale():
            more["scale"] = [scale.range, sorted(scale.whites.items())]
        if self.unwanted_key is not None:
            more["without"] = self.unwanted_key
        told = [VERSION, PIL.__version__, self.shape, self.settings, *([more] if more else [])]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


class Decoded(NamedTuple):
    """uint8 images (N, C, H, W) on their file, int64 labels (N,), and what happened when they were
    decoded."""

    images: Tensor
    labels: Tensor
    failed: dict[str, str]
    repeats: int

    def remarks(self, split: str) -> Iterator[str]:
        """What a user should know of them."""
        if self.failed:
            count = len(self.failed) + self.repeats + len(self.labels)
            named = "; ".join(f"{name}: {reason}" for name, reason in islice(self.failed.items(), NAMED))
            more = ", and others" if len(self.failed) > NAMED else ""
            yield (
                f"{len(self.failed):,} of {count:,} images of the {split} split could not be decoded and are left out "
                f"({named}{more})"
            )
        if self.repeats:
            yield f"{self.repeats:,} images of the {split} split are left out because they are also held out"


def decoded(request: Request, cache: Path) -> Decoded:
    """The images and their labels; decoded now, if nobody has done it yet.

    Who writes into the images writes into a copy of his own.
    """
    folder = cache / "decoded" / request.key
    facts = sound(folder, request.shape)
    if facts is None:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                facts = sound(folder, request.shape)
                if facts is None:  # nobody has done it meanwhile
                    discard(folder)
                    check_room(folder.parent, request.count, request.shape)
                    facts = decode_into(folder, request)
        except OSError as error:
            raise unwritable(cache, error) from error
    return Decoded(*mapped(folder, request.shape), facts["failed"], facts["repeats"])


def without(request: Request, held_out: Request, cache: Path) -> Request:
    """The request less the images that are equal to a held-out one. The held-out ones are decoded
    only if it is."""

    def unwanted() -> set[bytes]:
        return set(fingerprints(decoded(held_out, cache).images))

    return replace(request, unwanted=unwanted, unwanted_key=held_out.key)


VOUCHED_FOR: set[tuple[Path, int, str]] = set()
"""Images whose bytes this process has compared with their checksum: folder, number of the file,
checksum."""


def sound(folder: Path, shape: tuple[int, int, int]) -> dict[str, Any] | None:
    """The facts, if the images are there and are what was decoded, to the last bit.

    The sizes are compared each time, because a map of a file that is cut off kills the process.
    """
    facts = sealed.read(folder / FACTS)
    try:
        if facts is None or facts["sha256"][LABELS] != checksum(folder / LABELS):
            return None
        found = (folder / IMAGES).stat()
        if found.st_size != facts["count"] * int(np.prod(shape)):
            return None
        vouched = folder, found.st_ino, facts["sha256"][IMAGES]
        if vouched not in VOUCHED_FOR and checksum(folder / IMAGES) != vouched[-1]:
            return None
    except (OSError, LookupError):
        return None
    VOUCHED_FOR.add(vouched)
    return facts


def discard(folder: Path) -> None:
    """Take away what is not sound. What was decoded before there were checksums is not adopted: it
    may be damaged."""
    if folder.exists():
        text = f"{folder}: the decoded images are damaged or without checksums; decoding again"
        print(visible(text), file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)


def mapped(folder: Path, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    labels = np.fromfile(folder / LABELS, dtype="<i8").astype(np.int64)
    images = np.memmap(folder / IMAGES, dtype=np.uint8, mode="c", shape=(len(labels), *shape))
    return torch.from_numpy(images), torch.from_numpy(labels)


def check_room(folder: Path, count: int | None, shape: tuple[int, int, int]) -> None:
    wanted, free = (count or 0) * int(np.prod(shape)), shutil.disk_usage(folder).free
    if wanted > free:
        raise FwError(
            f"{count:,} decoded images take {wanted / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB left; give "
            "another folder as the dataset's `cache` or in $FW_CACHE_DIR"
        )


def decode_into(folder: Path, request: Request) -> dict[str, Any]:
    """Make the folder in one rename; what a killed process left under its other name is thrown away."""
    writing = folder.with_name(f"{folder.name}.writing")
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir()
    with (writing / IMAGES).open("wb") as images:
        made = decode(request, images)
    if not made.labels and made.repeats:
        raise MissingFile("every image is also held out, and none is left to train on")
    if not made.labels:
        name, reason = next(iter(made.failed.items()), ("", "there are none"))
        raise MissingFile(f"none of {len(made.failed):,} images could be decoded; {name}: {reason}")
    labels = np.asarray(made.labels, dtype="<i8").tobytes()
    (writing / LABELS).write_bytes(labels)
    for name in (IMAGES, LABELS):
        sync(writing / name)
    facts = {
        "count": len(made.labels),
        "failed": made.failed,
        "repeats": made.repeats,
        "sha256": {IMAGES: made.checksum, LABELS: hashlib.sha256(labels).hexdigest()},
    }
    sealed.write(writing / FACTS, facts)
    put(writing, folder)
    if made.failed:
        tell(made.failed, len(made.labels) + made.repeats + len(made.failed), folder)
    return facts


class Made(NamedTuple):
    """The labels of the images that were written and the sha256 of these; what was left out."""

    labels: list[int]
    checksum: str
    failed: dict[str, str]
    repeats: int


def decode(request: Request, images: BinaryIO) -> Made:
    """Append the pixels of each source to the file, in order."""
    labels: list[int] = []
    failed: dict[str, str] = {}
    repeats, pixels, files = 0, hashlib.sha256(), hashlib.sha256()
    largest: list[dict[str, int]] = []
    unwanted = request.unwanted()
    with strict_pillow(), progress("decoding images", request.count) as advance, ThreadPoolExecutor(cores()) as pool:
        one = partial(attempt, shape=request.shape, scale=request.scale)
        for few in chunks(request.sources(), AT_ONCE * cores()):
            for source, made in zip(few, pool.map(one, few), strict=True):
                files.update(signed(source.name, made.checksum))
                if made.deep is not None:
                    largest.append({made.deep.group: made.deep.largest})
                if isinstance(made.pixels, str):
                    failed[source.name] = made.pixels
                elif unwanted and fingerprint_of(made.pixels) in unwanted:
                    repeats += 1
                else:
                    written = made.pixels.tobytes()
                    pixels.update(written)
                    images.write(written)
                    labels.append(source.label)
            largest = [together(largest)]
            advance(len(few))
    if request.check is not None:
        request.check(files.hexdigest())
    if needed := whites(together(largest)):
        raise FwError(too_dark(max(needed.values())))
    return Made(labels, pixels.hexdigest(), failed, repeats)


def too_dark(white: int) -> str:
    return (
        f"the images of 16 bits per channel have no values above {white:,}, so that read as 16 bits they would be dark "
        f"or black: set the dataset's `range` to [0, {white}], or to [0, 65535] if they are meant to be"
    )


class Attempt(NamedTuple):
    """The pixels of a source, or why there are none; the sha256 of its bytes; what else is to be
    known of it."""

    pixels: NDArray[np.uint8] | str
    checksum: bytes
    deep: Deep | None


def attempt(source: Source, shape: tuple[int, int, int], scale: Scale | None) -> Attempt:
    """Decode a source. A file that cannot be read at all is no matter of decoding, and raises."""
    try:
        data = source.data if isinstance(source.data, bytes) else source.data.read_bytes()
    except OSError as error:
        raise unreadable(source.name, error) from None
    checksum = hashlib.sha256(data).digest()
    try:
        return Attempt(picture(data, shape, scale or Scale()), checksum, deep(data) if scale is None else None)
    except MemoryError:
        raise
    except Exception as error:  # whatever Pillow makes of damaged bytes
        return Attempt(why(error, data), checksum, None)


INNARDS = re.compile(r"<[^<>]* object at 0x[0-9a-fA-F]+>")
"""How Python shows the bytes that an error is about."""


def why(error: Exception, data: bytes) -> str:
    """The reason that an image could not be decoded, in one line for people."""
    if not data:
        return "it is empty"
    if reason := stand_in(data):
        return f"it {reason}"
    if type(error).__name__ == "UnidentifiedImageError":
        return f"cannot identify an image in it, of the formats {', '.join(FORMATS)}"
    return INNARDS.sub("it", f"{error}".partition("\n")[0]) or type(error).__name__


def chunks(sources: Iterable[Source], size: int) -> Iterator[Sequence[Source]]:
    remaining = iter(sources)
    while few := list(islice(remaining, size)):
        yield few


def tell(failed: dict[str, str], count: int, folder: Path) -> None:
    """Said when they are decoded; a run says it again in its warnings."""
    more = f", ... (all in {folder / FACTS})" if len(failed) > NAMED else ""
    names = ", ".join(islice(failed, NAMED))
    text = f"{len(failed):,} of {count:,} files could not be decoded: {names}{more}"
    print(visible(text), file=sys.stderr, flush=True)
