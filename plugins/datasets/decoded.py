"""Images that are decoded once and then mapped into memory: loading them again costs nothing, in
any process.

A folder `<cache>/decoded/<key>` holds images.u8 (N, C, H, W), labels.i64 (N,) and facts.json with
their checksums. It is written under another name and renamed when it is whole, under a lease. So a
killed process leaves nothing that is taken for finished, and two processes do not get in each
other's way; the next one goes on behind the last whole part (parts.py). Each process compares the
checksums once before it maps the images; what is damaged is decoded again. The folder may be
deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fw.core.errors import FwError, MissingFile
from fw.core.features.fingerprints import fingerprint_of, fingerprints
from fw.core.files import sealed
from fw.core.files.contents import stand_in
from fw.core.files.durable import put, sync
from fw.core.files.unfinished import checksum
from fw.core.machine.cores import cores
from fw.core.machine.leases import in_turn
from fw.core.messages.escaping import visible
from fw.plugins.datasets import parts
from fw.plugins.datasets.depth import Deep, Scale, deep, merged, whites
from fw.plugins.datasets.listing import fingerprint_entry, unreadable, unwritable
from fw.plugins.datasets.parts import Part
from fw.plugins.datasets.picture import FORMATS, picture, strict_pillow
from fw.plugins.datasets.progress import progress

VERSION = 1
"""Raise it when decoding gives other pixels."""

FACTS, IMAGES, LABELS = "facts.json", "images.u8", "labels.i64"

AT_ONCE = 64
"""Images in flight per thread."""

EXAMPLES = 3
"""How many files that could not be decoded are named in a message."""


class Source(NamedTuple):
    """An image still encoded, as bytes or in a file; what to call it; its label."""

    name: str
    data: bytes | Path
    label: int = 0


class Check(Protocol):
    """Raises MissingFile if the fingerprint is not that of the requested files."""

    def __call__(self, fingerprint: str, /) -> None: ...


@dataclass(frozen=True)
class Request:
    """Which images to decode, and how.

    `settings` is JSON that decides, with the shape, what the sources are. `count` is their number,
    if known. Without a `scale` the values of images with 16 bits per channel are not known yet, and
    images that need a scale are refused. `check` is called with the fingerprint of what was
    decoded. Images whose digests are in `unwanted` are left out; `unwanted_key` stands for these
    digests in the key.
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
        parts = [VERSION, PIL.__version__, self.shape, self.settings, *([more] if more else [])]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


class Decoded(NamedTuple):
    """uint8 images (N, C, H, W) on their file, int64 labels (N,), and what happened when they were
    decoded."""

    images: Tensor
    labels: Tensor
    failed: dict[str, str]
    repeats: int

    def remarks(self, split: str) -> Iterator[str]:
        """Remarks for the user on the images that are left out."""
        if self.failed:
            count = len(self.failed) + self.repeats + len(self.labels)
            examples = "; ".join(
                f"{name}: {reason}" for name, reason in islice(self.failed.items(), EXAMPLES)
            )
            more = ", and others" if len(self.failed) > EXAMPLES else ""
            yield (
                f"{len(self.failed):,} of {count:,} images of the {split} split could not be "
                f"decoded and are left out ({examples}{more})"
            )
        if self.repeats:
            yield (
                f"{self.repeats:,} images of the {split} split are left out because they are also "
                "held out"
            )


def decoded(request: Request, cache: Path) -> Decoded:
    """The images and their labels, decoded now unless that is done already.

    Writing into the images is safe: it changes a private copy of the pages in memory.
    """
    folder = cache / "decoded" / request.key
    facts = sound(folder, request.shape)
    if facts is None:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with in_turn(folder.with_name(f"{folder.name}.locks")):
                facts = sound(folder, request.shape)
                if facts is None:  # no other process has done it meanwhile
                    discard(folder)
                    check_room(folder.parent, request.count, request.shape)
                    facts = decode_into(folder, request)
        except OSError as error:
            raise unwritable(cache, error) from error
    return Decoded(*mapped(folder, request.shape), facts["failed"], facts["repeats"])


def without(request: Request, held_out: Request, cache: Path) -> Request:
    """The request without the images that are equal to a held-out one. The held-out images are
    decoded only if this request is."""

    def unwanted() -> set[bytes]:
        return set(fingerprints(decoded(held_out, cache).images))

    return replace(request, unwanted=unwanted, unwanted_key=held_out.key)


VOUCHED_FOR: set[tuple[Path, int, str]] = set()
"""Images whose bytes this process has compared with their checksum: folder, inode, checksum."""


def sound(folder: Path, shape: tuple[int, int, int]) -> dict[str, Any] | None:
    """The facts, if the decoded images are there and unchanged to the last bit.

    The sizes are compared each time, because a map of a file that is cut off kills the process.
    """
    facts = sealed.read(folder / FACTS)
    try:
        if facts is None or facts["sha256"][LABELS] != checksum(folder / LABELS):
            return None
        file_status = (folder / IMAGES).stat()
        if file_status.st_size != facts["count"] * int(np.prod(shape)):
            return None
        vouched = folder, file_status.st_ino, facts["sha256"][IMAGES]
        if vouched not in VOUCHED_FOR and checksum(folder / IMAGES) != vouched[-1]:
            return None
    except (OSError, LookupError):
        return None
    VOUCHED_FOR.add(vouched)
    return facts


def discard(folder: Path) -> None:
    """Remove a folder that is not sound. One from before there were checksums is not kept: it may
    be damaged."""
    if folder.exists():
        text = f"{folder}: the decoded images are damaged or without checksums; decoding again"
        print(visible(text), file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)


def mapped(folder: Path, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    labels = np.fromfile(folder / LABELS, dtype="<i8").astype(np.int64)
    images = np.memmap(folder / IMAGES, dtype=np.uint8, mode="c", shape=(len(labels), *shape))
    return torch.from_numpy(images), torch.from_numpy(labels)


def check_room(folder: Path, count: int | None, shape: tuple[int, int, int]) -> None:
    needed, free = (count or 0) * int(np.prod(shape)), shutil.disk_usage(folder).free
    if needed > free:
        raise FwError(
            f"{count:,} decoded images take {needed / 1e9:.1f} GB and {folder} has "
            f"{free / 1e9:.1f} GB left; give "
            "another folder as the dataset's `cache` or in $FW_CACHE_DIR"
        )


def decode_into(folder: Path, request: Request) -> dict[str, Any]:
    """Make the folder in one rename; what a killed process has left unfinished is completed."""
    writing = folder.with_name(f"{folder.name}.writing")
    writing.mkdir(exist_ok=True)
    (writing / IMAGES).touch()
    with (writing / IMAGES).open("r+b") as images:
        outcome = decode(request, writing, images)
    if not outcome.labels and outcome.repeats:
        raise MissingFile("every image is also held out, and none is left to train on")
    if not outcome.labels:
        name, reason = next(iter(outcome.failed.items()), ("", "there are none"))
        raise MissingFile(
            f"none of {len(outcome.failed):,} images could be decoded; {name}: {reason}"
        )
    labels = np.asarray(outcome.labels, dtype="<i8").tobytes()
    (writing / LABELS).write_bytes(labels)
    for name in (IMAGES, LABELS):
        sync(writing / name)
    facts = {
        "count": len(outcome.labels),
        "failed": outcome.failed,
        "repeats": outcome.repeats,
        "sha256": {IMAGES: outcome.checksum, LABELS: hashlib.sha256(labels).hexdigest()},
    }
    sealed.write(writing / FACTS, facts)
    parts.forget(writing)
    put(writing, folder)
    if outcome.failed:
        report_failures(
            outcome.failed, len(outcome.labels) + outcome.repeats + len(outcome.failed), folder
        )
    return facts


@dataclass
class Outcome:
    """The labels and the sha256 of the images that were written, and what was left out."""

    labels: array[int]
    failed: dict[str, str]
    repeats: int = 0
    checksum: str = ""


def decode(request: Request, folder: Path, images: BinaryIO) -> Outcome:
    """Append the pixels of each source to the file, in order, part by part; those that an earlier
    try has kept in the folder stay."""
    outcome = Outcome(array("q"), {})
    pixels, files, largest = hashlib.sha256(), hashlib.sha256(), dict[str, int]()
    unwanted = request.unwanted()
    with (
        strict_pillow(),
        progress("decoding images", request.count) as advance,
        ThreadPoolExecutor(cores()) as pool,
    ):
        for number, sources in enumerate(in_parts(request.sources())):
            part = parts.kept(folder, number, images, pixels)
            if part is None:
                names, part = decode_part(request, sources, images, pixels, unwanted, pool, advance)
                part.keep(folder, number, images)
            else:
                names = [source.name for source in sources]
                advance(len(names))
            for name, checksum in zip(names, part.sources, strict=True):
                files.update(fingerprint_entry(name, bytes.fromhex(checksum)))
            outcome.labels.extend(part.labels)
            outcome.failed.update(part.failed)
            outcome.repeats += part.repeats
            largest = merged([largest, part.largest])
    try:
        if request.check is not None:
            request.check(files.hexdigest())
    except FwError:
        parts.forget(folder)  # one may have been read wrongly
        raise
    if needed := whites(largest):
        raise FwError(too_dark(max(needed.values())))
    outcome.checksum = pixels.hexdigest()
    return outcome


def decode_part(
    request: Request,
    sources: Iterable[Source],
    images: BinaryIO,
    pixels: parts.Hash,
    unwanted: Collection[bytes],
    pool: ThreadPoolExecutor,
    advance: Callable[[int], None],
) -> tuple[list[str], Part]:
    """Append the pixels of these sources to the file: what they are called, and what was made of
    them."""
    part, own, names = Part(), hashlib.sha256(), list[str]()
    one = partial(attempt, shape=request.shape, scale=request.scale)
    largest: list[dict[str, int]] = []
    for few in chunks(sources, AT_ONCE * cores()):
        for source, result in zip(few, pool.map(one, few), strict=True):
            names.append(source.name)
            part.sources.append(result.checksum.hex())
            if result.deep is not None:
                largest.append({result.deep.group: result.deep.largest})
            if isinstance(result.pixels, str):
                part.failed[source.name] = result.pixels
            elif unwanted and fingerprint_of(result.pixels) in unwanted:
                part.repeats += 1
            else:
                written = result.pixels.tobytes()
                part.size += len(written)
                own.update(written)
                pixels.update(written)
                images.write(written)
                part.labels.append(source.label)
        advance(len(few))
    part.largest, part.sha256 = merged(largest), own.hexdigest()
    return names, part


def in_parts(sources: Iterable[Source]) -> Iterator[Iterator[Source]]:
    """The sources of each part, which are to be taken before the next one's."""
    remaining = iter(sources)
    for first in remaining:
        yield chain([first], islice(remaining, parts.SOURCES - 1))


def too_dark(white: int) -> str:
    return (
        f"the images of 16 bits per channel have no values above {white:,}, so that read as 16 "
        f"bits they would be dark or black: set the dataset's `range` to [0, {white}], or to [0, "
        "65535] if they are meant to be"
    )


class Attempt(NamedTuple):
    """The pixels of a source, or the reason why there are none; the sha256 of its bytes; its depth,
    if that is still to be decided."""

    pixels: NDArray[np.uint8] | str
    checksum: bytes
    deep: Deep | None


def attempt(source: Source, shape: tuple[int, int, int], scale: Scale | None) -> Attempt:
    """Decode a source. MissingFile for a file that cannot be read at all."""
    try:
        data = source.data if isinstance(source.data, bytes) else source.data.read_bytes()
    except OSError as error:
        raise unreadable(source.name, error) from None
    checksum = hashlib.sha256(data).digest()
    try:
        return Attempt(
            picture(data, shape, scale or Scale()), checksum, deep(data) if scale is None else None
        )
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


def report_failures(failed: dict[str, str], count: int, folder: Path) -> None:
    """Print which files could not be decoded; a run repeats it in its warnings."""
    more = f", ... (all in {folder / FACTS})" if len(failed) > EXAMPLES else ""
    names = ", ".join(islice(failed, EXAMPLES))
    text = f"{len(failed):,} of {count:,} files could not be decoded: {names}{more}"
    print(visible(text), file=sys.stderr, flush=True)
