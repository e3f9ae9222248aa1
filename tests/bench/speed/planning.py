"""Planning over a folder of image files, which are known from an earlier command or not."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sites import fw

from bench.speed import counted
from bench.speed.row import Goal, Row

TINY = Path(__file__).parents[2] / "tiny.yaml"

FEWEST = 40
"""Images that k-means can be planned for."""

FOLDER = 1000
"""Files in one sub-folder."""

BMP = bytes.fromhex(
    "424d4600000000000000360000002800000002000000020000000100180000000000"
    "10000000130b0000130b00000000000000000000"
)
"""The head of an image of 2x2 pixels, of which each row has 8 bytes."""


@dataclass(frozen=True)
class Size:
    counts: tuple[int, ...] = (1000, 10_000, 100_000)


SMALL = Size(counts=(FEWEST,))


def rows(size: Size = Size()) -> Iterator[Row]:
    list(plans(FEWEST))  # what is imported for the first time does not count
    for count in size.counts:
        yield from plans(count)


def plans(count: int) -> Iterator[Row]:
    """Of new files, and of the same again."""
    with tempfile.TemporaryDirectory(prefix="speed-") as folder:
        root = fill(Path(folder) / "images", count)
        words = dry_run(root, Path(folder))
        yield planned(words, root, count, known=False)
        yield planned(words, root, count, known=True)


def planned(words: list[str | Path], root: Path, count: int, known: bool) -> Row:
    """`fw run --dry-run` on a recipe of three arms."""
    with counted.looks(root) as looks:
        began = time.process_time()
        answer = fw(*words)
        spent = time.process_time() - began
    if answer.code:
        raise RuntimeError(answer.err)
    goal = Goal(3) if known and count == max(Size().counts) else None
    when = "known" if known else "new"
    against = "one walk, and one read of each" if not known else "one walk, and no read"
    counts = {"walks": looks["walks"], "reads": looks["reads"]}
    return Row(f"plan over {count:,} files, {when}", against, spent, "CPU s", goal, counts=counts)


def dry_run(root: Path, folder: Path) -> list[str | Path]:
    dataset = (
        f"dataset={{name: image_folder, root: {root}, size: 8, channels: 1, held_out: 0.1, "
        f"cache: {folder / 'cache'}}}"
    )
    return ["run", TINY, "--dry-run", "--out", folder / "out", "--set", dataset]


def fill(root: Path, count: int) -> Path:
    """So many images, each with other pixels."""
    for number in range(count):
        if number % FOLDER == 0:
            below = root / f"{number // FOLDER:04d}"
            below.mkdir(parents=True)
        (below / f"{number:07d}.bmp").write_bytes(BMP + number.to_bytes(16, "little"))
    return root
