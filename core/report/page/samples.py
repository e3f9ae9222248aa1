"""Samples of all arms in columns: what stands in one row began as the same noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fw.core.report.markdown import whose_images
from fw.core.report.page.marks import Mark
from fw.core.report.page.material import Material
from fw.core.report.page.pictures import Picture, sheet

MOST = 60
"""Arms with a column."""

ROWS = 8

WIDE = 21
"""Samples side by side, of all arms together, where there are few arms."""

ACROSS = 4
"""Samples side by side in one column, at most."""

CELL = 44
"""Pixels of the screen for one sample."""


@dataclass(frozen=True)
class Column:
    name: str
    mark: Mark
    picture: Picture


@dataclass(frozen=True)
class Samples:
    columns: Sequence[Column]
    left_out: int
    conditions_differ: bool
    whose: str
    """Which training the images are of, on the whole page; empty where there is one."""
    cell: int = CELL


def samples(material: Material) -> Samples | None:
    arms = list(material.finished)[:MOST]
    if not arms:
        return None
    across = max(1, min(ACROSS, WIDE // len(arms)))
    columns = []
    for name in arms:
        images = material.samples(material.finished[name].drawn)
        if images is not None:
            columns.append(
                Column(name, material.marks[name], sheet(images[: across * ROWS], across))
            )
    if not columns:
        return None
    annotated = {material.finished[name].annotate for name in arms}
    left_out = len(material.finished) - len(arms)
    return Samples(columns, left_out, len(annotated) > 1, whose_images(material.result))
