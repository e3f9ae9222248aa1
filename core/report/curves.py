"""Pictures of trainings on the way: scores over steps, and samples over steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fw.core.report.panels import draw_floors, finite, panels, words
from fw.core.report.snapshots import ROWS, scored_arms, spread

COLUMNS, WHOLE = 8, 64
"""Images in a row of `grid.png`, a file of each sample stage, and in all of it."""


def save_curves_figure(result: Mapping[str, Any], keys: Sequence[str], path: Path) -> None:
    """Each key over the steps of training, one line per arm that has it; an empty panel where no
    snapshot has any of them."""
    arms = scored_arms(result)
    scored = [key for key in keys if any(key in each["metrics"] for each in every(arms))]
    counts = " or ".join(str(count) for count in sorted({each["count"] for each in every(arms)}))
    note = f"{counts} samples of one sampling seed; dotted line: real held-out images"
    with panels(scored or keys[:1], (4.2, 3.6), note, path, sharex=True) as axes:
        for axis, key in zip(axes, scored, strict=False):
            for number, (name, entries) in enumerate(arms.items()):
                points = curve(entries, key)
                axis.plot(
                    [step for step, _ in points],
                    [score for _, score in points],
                    linestyle="--" if name == result["baseline"] else "-",
                    marker=".",
                    color=f"C{number % 10}",
                    label=words(name),
                )
            floors = {e["metrics"][key]["floor"] for e in every(arms) if key in e["metrics"]}
            draw_floors(axis.axhline, finite(floors - {None}))
            axis.set_xlabel("training steps")
        if scored:
            axes[0].legend(fontsize=7)


def curve(entries: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    """The scores of an arm's snapshots by step, where they have one with a place on an axis."""
    points = [(e["step"], e["metrics"][key]["mean"]) for e in entries if key in e["metrics"]]
    return [(step, score) for step, score in sorted(points) if math.isfinite(score)]


def every(arms: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    return [entry for entries in arms.values() for entry in entries]


def save_steps_picture(grids: Sequence[Path], images: int, path: Path) -> None:
    """The first row of each snapshot's grid of samples, one below the other: the same noise after
    more and more steps. `grids` are the files in the order of steps, each of so many `images`."""
    from PIL import Image

    rows, height = [], -(-min(images, WHOLE) // COLUMNS)
    for grid in spread(grids, ROWS):
        with Image.open(grid) as picture:
            first = (0, 0, picture.width, picture.height // height)
            rows.append(picture.convert("RGB").crop(first))
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)))
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    sheet.save(path)
