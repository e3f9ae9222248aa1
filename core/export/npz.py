"""Images as one NPZ file in the layout of ADM's evaluator (arXiv 2105.05233): `arr_0`, uint8
(N, H, W, 3), and `arr_1`, int64 (N,), where there are classes.

The evaluator's Inception takes RGB, so grey images are repeated three times. The file is written
image by image, whatever their number; equal images make an equal file.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from fw.core.errors import FwError
from fw.core.export.images import Images
from fw.core.export.whole import new_file

RGB = 3


def write_npz(images: Images, path: Path) -> None:
    channels, height, width = images.shape
    if channels not in (1, RGB):
        raise FwError(
            f"--to {path}: the evaluator takes RGB, and these images have {channels} channels"
        )
    classes: list[npt.NDArray[np.int64]] = []

    def pixels() -> Iterator[npt.NDArray[np.uint8]]:
        for portion in images:
            if portion.classes is not None:
                classes.append(portion.classes.numpy())
            coloured = portion.images.expand(-1, RGB, -1, -1)
            yield coloured.permute(0, 2, 3, 1).contiguous().numpy()

    with new_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with entry(archive, "arr_0") as file:
            begin(file, np.dtype(np.uint8), (len(images), height, width, RGB))
            for some in pixels():
                file.write(some.tobytes())
        if images.have_classes:
            with entry(archive, "arr_1") as file:
                begin(file, np.dtype(np.int64), (len(images),))
                file.write(np.concatenate(classes).tobytes())


def entry(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """An array's file in the archive, of zip's first date, and of any size."""
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)


def begin(file: IO[bytes], dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> None:
    described = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(file, described)
