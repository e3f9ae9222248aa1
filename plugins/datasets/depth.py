"""Images of more than 8 bits per channel: which value of a file is white, said once for a whole
data set.

Files of 16 bits often hold fewer: cameras and scanners write 10, 12 or 14 into the lower ones. Read
as 16 bits they are black. What a file states is believed: PNM's maxval, TIFF's BitsPerSample below
16, a TIFF's MaxSampleValue or a PNG's sBIT that says a number of bits. sBIT is also written beside
values that were scaled up to 16 bits, as the PNG specification wants it, so it counts
only while no file that states it has larger values. Files that state nothing are white where the
largest value of all of them ends, rounded up to 8, 10, 12, 14 or 16 bits. An image by itself
decides nothing, because a dark image is to stay darker than a bright one.
"""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

FULL = 2**16 - 1

WHITES = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))
"""The largest values that images of these numbers of bits can have."""

UNSTATED, PNM = "unstated", "pnm"
"""Groups of files: those that state no depth, and PNM, which Pillow scales up to 16 bits by its
maxval. The files of any other group state the same largest value, which is the group's name."""

BITS_PER_SAMPLE, MAX_SAMPLE = 258, 281
"""Tags of TIFF."""

PNG = b"\x89PNG"

STARTS = (PNG, b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"P5")
"""How files begin whose values may need scaling: PNG, TIFF and grey PNM. Pillow scales JPEG 2000
and P6 itself."""

START = 25
"""Bytes of a file that tell whether they may."""


class Deep(NamedTuple):
    """An image of 16 bits per channel: the group that says how it is scaled, and its largest value."""

    group: str
    largest: int


@dataclass(frozen=True)
class Scale:
    """How values of more than 8 bits become 8: `range` (black, white) if a user says so, else a
    white for each group.

    A group that is not in `whites` is white at 65535. 32 bits per pixel need a range.
    """

    range: tuple[float, float] | None = None
    whites: Mapping[str, int] = field(default_factory=dict)

    def limits(self, group: str) -> tuple[float, float]:
        """Black and white of a group. A PNM file states its white itself, whatever the others need."""
        if self.range is not None and group != PNM:
            return self.range
        return 0, self.whites.get(group, FULL)


def opened(data: bytes) -> ImageFile:
    from PIL import Image

    return Image.open(io.BytesIO(data), formats=("PNG", "PPM", "TIFF"))


def may_be_deep(start: bytes) -> bool:
    """Whether a file that begins like this may have 16 bits per channel. Byte 24 of a PNG says how
    many it has, so that the others need not be read twice."""
    return start.startswith(STARTS) and (not start.startswith(PNG) or start[24:25] == b"\x10")


def deep(data: bytes) -> Deep | None:
    """What is to be known of a file with 16 bits per channel; None of any other, and of damaged
    ones."""
    if not may_be_deep(data[:START]):
        return None
    try:
        with opened(data) as file:
            group = group_of(file, data)
            if group is None:
                return None
            file.load()
            return Deep(group, int(values(file, data, exact=False).max(initial=0)))
    except MemoryError:
        raise
    except Exception:  # whatever Pillow makes of damaged bytes; they are told of when they are decoded
        return None


def group_of(file: ImageFile, data: bytes) -> str | None:
    """The group of an opened file whose values have 16 bits; None if they have 8, 32, or are scaled
    by Pillow."""
    if file.format == "PPM":
        return PNM if file.mode == "I" else None
    layout = raw_mode(file.tile[0].args) if file.tile else ""
    if ";16" not in layout and ";12" not in layout:
        return None
    if file.mode == "I" and file.format != "PNG":  # of signed numbers
        return None
    stated = 0
    if file.format == "TIFF":
        tags: Any = file.tag_v2  # type: ignore[attr-defined]
        bits, told = (int(np.max(tags.get(tag, least))) for tag, least in ((BITS_PER_SAMPLE, 16), (MAX_SAMPLE, 0)))
        stated = 2**bits - 1 if bits < 16 else told if told in WHITES else 0
    elif file.format == "PNG":
        stated = 2 ** significant_bits(data) - 1
    return str(stated) if stated else UNSTATED


def significant_bits(data: bytes) -> int:
    """The largest number in a PNG's chunk sBIT; 0 without one."""
    place = 8
    while place + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        if kind == b"sBIT":
            return max(data[place + 8 : place + 8 + length], default=0)
        if kind == b"IDAT":
            break
        place += 12 + length
    return 0


def values(file: ImageFile, data: bytes, exact: bool = True) -> NDArray[np.uint32]:
    """The values (H, W) or (H, W, channels) of a loaded file with 16 bits per channel.

    Of a coloured file Pillow keeps the upper 8 bits; the lower ones are read as if the bytes had
    the other order. Where it cannot do that, ValueError, or if they need not be `exact`, the lower
    bits are taken to be ones.
    """
    upper = np.asarray(file).astype(np.uint32)
    if file.mode.startswith("I"):
        return upper
    try:
        return upper * 256 + np.asarray(lower(data)).astype(np.uint32)
    except ValueError:
        if exact:
            raise ValueError(f"of {file.mode} with 16 bits per channel only the upper 8 can be read") from None
        return upper * 256 + 255


def lower(data: bytes) -> ImageFile:
    """A coloured file of 16 bits per channel with the lower 8 of them."""
    file = opened(data)
    file.tile = [tile._replace(args=swapped(tile.args)) for tile in file.tile]
    file.load()
    return file


def raw_mode(args: Any) -> str:
    """How Pillow's decoder is told the layout of the bytes."""
    told = args[0] if isinstance(args, tuple) and args else args
    return told if isinstance(told, str) else ""


def swapped(args: Any) -> Any:
    told = raw_mode(args)
    native = "L" if sys.byteorder == "little" else "B"
    order = native if told[-1] == "N" else told[-1]
    other = told[:-1] + ("B" if order == "L" else "L")
    return (other, *args[1:]) if isinstance(args, tuple) else other


def together(found: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The largest value in each group of several sets of files."""
    largest: dict[str, int] = {}
    for each in found:
        for group, value in each.items():
            largest[group] = max(value, largest.get(group, 0))
    return largest


def whites(largest: Mapping[str, int]) -> dict[str, int]:
    """What is white in each group, by the largest values that occur: of those groups that are not
    as 16 full bits.

    Up to this rule fw took all for 16 full bits and left grey PNM out, and the keys of such images
    stay.
    """
    found = {group: white(group, value) for group, value in sorted(largest.items())}
    return {group: value for group, value in found.items() if value != FULL or group == PNM}


def white(group: str, largest: int) -> int:
    if group == PNM:
        return FULL
    if group == UNSTATED:
        return next(value for value in WHITES if value >= largest)
    return int(group) if largest <= int(group) else FULL


def scaled(deep: NDArray[Any], limits: tuple[float, float]) -> NDArray[np.uint8]:
    """Values as 0..255, rounded; what lies outside the limits is black or white."""
    black, bright = limits
    if deep.dtype.kind != "f" and black == 0 and bright == FULL:
        return ((deep.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 / 255 = 257
    if not np.isfinite(deep).all():
        raise ValueError("it has values that are not finite")
    share = (deep.astype(np.float64) - black) / (bright - black)
    return np.floor(share.clip(0, 1) * 255 + 0.5).astype(np.uint8)
