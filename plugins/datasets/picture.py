"""One image file as pixels: upright, in 8 bits, cut to the middle and shrunk without aliasing.

Shrinking affects scores. A filter that does not widen with the factor leaves aliasing behind, which
changes FID by more than a better model does (Parmar et al., arXiv 2104.11222). Pillow's filters
widen; EDM (arXiv 2206.00364) prepares its data with LANCZOS. JPEG's quick decoding at a fraction of
the size (`draft`) and Pillow's `reducing_gap` are other filters, so neither is used.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fw.plugins.datasets.depth import FULL, PNM, Scale, group_of, scaled, values

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that are read, whatever a file's ending. For others Pillow even runs Ghostscript."""

ENDINGS = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
"""Endings of image files, in lower case."""


def picture(data: bytes, shape: tuple[int, int, int], scale: Scale) -> NDArray[np.uint8]:
    """The pixels (C, H, W) of an image file, C being 1 (grey, ITU-R 601) or 3 (RGB); raises if it
    is damaged.

    Animations give their first frame, transparency is put on white, and colour profiles are not
    applied. `scale` says how more than 8 bits per channel become 8.
    """
    from PIL import Image, ImageOps

    channels, height, width = shape
    Image.init()  # registers the formats; does nothing from the second time on
    with Image.open(
        io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN]
    ) as file:
        group = group_of(file, data)
        file.load()
        shallow = eight_bits(file, data, group, scale)
        if shallow is not file:
            shallow.info["exif"] = file.getexif().tobytes()  # which way is up
    colour = opaque(ImageOps.exif_transpose(shallow)).convert("RGB")
    plain = colour if channels == 3 else colour.convert("L")
    small = plain.resize(
        (width, height), Image.Resampling.LANCZOS, box=middle(plain.size, height, width)
    )
    return (
        np.asarray(small).reshape(height, width, channels).transpose(2, 0, 1)
    )  # (H, W, C) -> (C, H, W)


def eight_bits(image: ImageFile, data: bytes, group: str | None, scale: Scale) -> Image:
    """A loaded image with 8 bits per channel; Pillow itself would clip 16 grey bits instead of
    scaling them."""
    from PIL import Image

    if group is None:
        if image.mode not in ("I", "F"):
            return image
        if scale.range is None:
            raise ValueError(
                f"{image.mode}: 32 bits per pixel, whose range is not known; set the dataset's "
                f"`range`, such as {'[0, 65535]' if image.mode == 'I' else '[0, 1]'}"
            )
        return Image.fromarray(scaled(np.asarray(image), scale.range))
    if group == PNM and group not in scale.whites and scale.range is None:
        raise ValueError("grey PNM of 16 bits; set the dataset's `range`, such as [0, 65535]")
    black, white = scale.limits(group)
    grey = image.mode.startswith("I")
    if not grey and black == 0 and white == FULL:
        return image  # the upper 8 of 16 bits, as Pillow reads them
    return Image.fromarray(scaled(values(image, data), (black, white)), "L" if grey else image.mode)


def opaque(image: Image) -> Image:
    """The image on white, where it has transparency."""
    from PIL import Image

    if not image.has_transparency_data:
        return image
    coloured = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured)


def middle(size: tuple[int, int], height: int, width: int) -> tuple[float, float, float, float]:
    """The largest box (left, top, right, bottom) about the middle with the aspect of height and
    width, to fractions of a pixel."""
    across, down = size
    scale = min(across / width, down / height)
    left = max(
        0.0, (across - width * scale) / 2
    )  # rounding may put it a hair outside, which Pillow refuses
    top = max(0.0, (down - height * scale) / 2)
    return left, top, across - left, down - top


@contextlib.contextmanager
def strict_pillow() -> Iterator[None]:
    """Damaged files raise and oddities give no warning, whatever other libraries set in Pillow."""
    from PIL import ImageFile

    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
