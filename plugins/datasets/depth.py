"""Images of more than 8 bits per channel: which value is white, decided once for a whole data set.

Files of 16 bits often use fewer: cameras and scanners write 10, 12 or 14 into the lower ones. Read
as 16 bits such images are black. What a file states is believed: PNM's maxval, TIFF's BitsPerSample
below 16, a TIFF's MaxSampleValue or a PNG's sBIT that gives a number of bits. sBIT is also written
beside values that were scaled up to 16 bits, as the PNG specification demands, so it counts only
while no file that states it has larger values. For files that state nothing, white is the largest
value in all of them, rounded up to 8, 10, 12, 14 or 16 bits. A single image decides nothing,
because a dark image is to stay darker than a bright one.
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
"""Beginnings of files whose values may need scaling: PNG, TIFF and grey PNM. Pillow scales JPEG
2000 and P6 itself."""

START = 25
"""How many bytes of a file `may_be_deep` needs."""


class Deep(NamedTuple):
    """An image of 16 bits per channel: the group that says how it is scaled, and its largest
    value."""

    group: str
    largest: int


@dataclass(frozen=True)
class Scale:
    """How values of more than 8 bits become 8: by `range` (black, white) if the recipe has one,
    else by a white for each group.

    A group that is not in `whites` is white at 65535. 32 bits per pixel need a range.
    """

    range: tuple[float, float] | None = None
    whites: Mapping[str, int] = field(default_factory=dict)

    def limits(self, group: str) -> tuple[float, float]:
        """Black and white of a group. A PNM file states its white itself, whatever the others
        need."""
        if self.range is not None and group != PNM:
            return self.range
        return 0, self.whites.get(group, FULL)


def opened(data: bytes) -> ImageFile:
    from PIL import Image

    return Image.open(io.BytesIO(data), formats=("PNG", "PPM", "TIFF"))


def may_be_deep(start: bytes) -> bool:
    """Whether a file that begins like this may have 16 bits per channel. Byte 24 of a PNG gives the
    number of bits, so PNGs of 8 bits need not be read twice."""
    return start.startswith(STARTS) and (not start.startswith(PNG) or start[24:25] == b"\x10")


def deep(data: bytes) -> Deep | None:
    """The depth of a file with 16 bits per channel; None for any other, and for damaged ones."""
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
    except Exception:  # Pillow raises anything on damaged bytes; decoding reports them
        return None


def group_of(file: ImageFile, data: bytes) -> str | None:
    """The group of an opened file whose values have 16 bits; None if they have 8, 32, or are scaled
    by Pillow."""
    if file.format == "PPM":
        return PNM if file.mode == "I" else None
    layout = raw_mode(file.tile[0].args) if file.tile else ""
    if ";16" not in layout and ";12" not in layout:
        return None
    if file.mode == "I" and file.format != "PNG":  # signed numbers
        return None
    stated = 0
    if file.format == "TIFF":
        tags: Any = file.tag_v2  # type: ignore[attr-defined]
        bits, largest = (
            int(np.max(tags.get(tag, least)))
            for tag, least in ((BITS_PER_SAMPLE, 16), (MAX_SAMPLE, 0))
        )
        stated = 2**bits - 1 if bits < 16 else largest if largest in WHITES else 0
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

    Pillow keeps only the upper 8 bits of a coloured file; the lower ones are read as if the bytes
    had the other order. Where Pillow cannot do that, it is a ValueError; if the values need not be
    `exact`, the lower bits are set to ones.
    """
    upper = np.asarray(file).astype(np.uint32)
    if file.mode.startswith("I"):
        return upper
    try:
        return upper * 256 + np.asarray(lower(data)).astype(np.uint32)
    except ValueError:
        if exact:
            raise ValueError(
                f"of {file.mode} with 16 bits per channel only the upper 8 can be read"
            ) from None
        return upper * 256 + 255


def lower(data: bytes) -> ImageFile:
    """A coloured file of 16 bits per channel with the lower 8 of them."""
    file = opened(data)
    file.tile = [tile._replace(args=swapped(tile.args)) for tile in file.tile]
    file.load()
    return file


def raw_mode(args: Any) -> str:
    """Pillow's name for the layout of the bytes, from its decoder's arguments."""
    mode = args[0] if isinstance(args, tuple) and args else args
    return mode if isinstance(mode, str) else ""


def swapped(args: Any) -> Any:
    mode = raw_mode(args)
    native = "L" if sys.byteorder == "little" else "B"
    order = native if mode[-1] == "N" else mode[-1]
    other = mode[:-1] + ("B" if order == "L" else "L")
    return (other, *args[1:]) if isinstance(args, tuple) else other


def merged(maxima: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The largest value in each group of several sets of files."""
    largest: dict[str, int] = {}
    for by_group in maxima:
        for group, value in by_group.items():
            largest[group] = max(value, largest.get(group, 0))
    return largest


def whites(largest: Mapping[str, int]) -> dict[str, int]:
    """What is white in each group, by the largest values that occur. Groups that use 16 full bits
    are left out.

    Before this rule fw read everything as 16 full bits and left grey PNM out; so the keys of images
    with 16 full bits stay.
    """
    by_group = {group: white(group, value) for group, value in sorted(largest.items())}
    return {group: value for group, value in by_group.items() if value != FULL or group == PNM}


def white(group: str, largest: int) -> int:
    if group == PNM:
        return FULL
    if group == UNSTATED:
        return next(value for value in WHITES if value >= largest)
    return int(group) if largest <= int(group) else FULL


def scaled(deep: NDArray[Any], limits: tuple[float, float]) -> NDArray[np.uint8]:
    """Values as 0..255, rounded; those outside the limits become black or white."""
    black, bright = limits
    if deep.dtype.kind != "f" and black == 0 and bright == FULL:
        return ((deep.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 / 255 = 257
    if not np.isfinite(deep).all():
        raise ValueError("it has values that are not finite")
    share = (deep.astype(np.float64) - black) / (bright - black)
    return np.floor(share.clip(0, 1) * 255 + 0.5).astype(np.uint8)
