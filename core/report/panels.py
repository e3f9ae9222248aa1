"""What the figures beside report.md have in common: a row of panels in a PNG file, each with a
title, and the floor as a dotted line."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fw.core.messages.escaping import in_utf8, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOTE = 8
"""Points of the note's letters."""

WIDE = 0.55
"""The width of a letter, in its height, on average."""


@contextmanager
def panels(
    titles: Sequence[str],
    size: tuple[float, float],
    note: str,
    path: Path,
    metadata: Mapping[str, str] | None = None,
    **shared: Any,
) -> Iterator[Sequence[Axes]]:
    """The axes of panels side by side, to draw on; each is so many inches wide and high. What is
    `shared` is as matplotlib names it. The figure is written when all is drawn."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    width, height = size
    figure, axes = plt.subplots(
        1,
        len(titles),
        figsize=(width * len(titles), height),
        squeeze=False,
        layout="constrained",
        **shared,
    )
    try:
        for axis, title in zip(axes[0], titles, strict=True):
            axis.set_title(words(title), fontsize=10)
            axis.spines[["top", "right"]].set_visible(False)
        yield axes[0]
        figure.supxlabel(folded(note, width * len(titles)), fontsize=NOTE)
        figure.savefig(path, dpi=150, metadata=metadata)
    finally:
        plt.close(figure)


def folded(note: str, inches: float) -> str:
    """A note in lines that are no wider than the figure."""
    characters = int(inches * 72 / (WIDE * NOTE))
    return "\n".join(textwrap.fill(line, characters) for line in note.split("\n"))


def words(text: object) -> str:
    """The text as matplotlib draws it letter by letter: a dollar sign begins no formula."""
    return visible(in_utf8(str(text))).replace("$", r"\$")


def draw_floors(line: Callable[..., object], floors: Iterable[float]) -> None:
    """What real held-out images score, by `axvline` or `axhline`."""
    for floor in floors:
        line(floor, color="black", linestyle=":", linewidth=1)


def finite(values: Iterable[float]) -> list[float]:
    """Those that have a place on an axis."""
    return [value for value in values if math.isfinite(value)]
