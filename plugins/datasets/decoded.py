"""Images that are decoded once and then mapped into memory: loading them again costs nothing, in
any process.

A folder `<cache>/decoded/<key>` holds images.u8 (N, C, H, W), labels.i64 (N,) and facts.json with
their checksums. It is written under another name and renamed when it is whole, under a lease. So a
killed process leaves nothing that is taken for finished, and two processes do not get in each
other's way. Each process compares the checksums once before it maps the images; what is damaged is
decoded again. The folder may be deleted at any time.
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
from fw.plugins.datasets.depth import Deep, Scale, deep, merged, whites
from fw.plugins.datasets.listing import fingerprint_entry, unreadable, unwritable
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
    """Make the folder in one rename; the unfinished folder of a killed process is thrown away."""
    writing = folder.with_name(f"{folder.name}.writing")
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir()
    with (writing / IMAGES).open("wb") as images:
        outcome = decode(request, images)
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
    put(writing, folder)
    if outcome.failed:
        report_failures(
            outcome.failed, len(outcome.labels) + outcome.repeats + len(outcome.failed), folder
        )
    return facts


class Outcome(NamedTuple):
    """The labels and the sha256 of the images that were written, and what was left out."""

    labels: list[int]
    checksum: str
    failed: dict[str, str]
    repeats: int


def decode(request: Request, images: BinaryIO) -> Outcome:
    """Append the pixels of each source to the file, in order."""
    labels: list[int] = []
    failed: dict[str, str] = {}
    repeats, pixels, files = 0, hashlib.sha256(), hashlib.sha256()
    largest: list[dict[str, int]] = []
    unwanted = request.unwanted()
    with (
        strict_pillow(),
        progress("decoding images", request.count) as advance,
        ThreadPoolExecutor(cores()) as pool,
    ):
        one = partial(attempt, shape=request.shape, scale=request.scale)
        for few in chunks(request.sources(), AT_ONCE * cores()):
            for source, result in zip(few, pool.map(one, few), strict=True):
                files.update(fingerprint_entry(source.name, result.checksum))
                if result.deep is not None:
                    largest.append({result.deep.group: result.deep.largest})
                if isinstance(result.pixels, str):
                    failed[source.name] = result.pixels
                elif unwanted and fingerprint_of(result.pixels) in unwanted:
                    repeats += 1
                else:
                    written = result.pixels.tobytes()
                    pixels.update(written)
                    images.write(written)
                    labels.append(source.label)
            largest = [merged(largest)]
            advance(len(few))
    if request.check is not None:
        request.check(files.hexdigest())
    if needed := whites(merged(largest)):
        raise FwError(too_dark(max(needed.values())))
    return Outcome(labels, pixels.hexdigest(), failed, repeats)


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
