"""Pictures of trainings on the way: scores over steps, and samples over steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fw.core.report.figures import words
from fw.core.report.snapshots import ROWS, scored_arms, spread

COLUMNS, WHOLE = 8, 64
"""Images in a row of `grid.png`, a file of each sample stage, and in all of it."""


def save_curves_figure(result: Mapping[str, Any], keys: Sequence[str], path: Path) -> None:
    """Each key over the steps of training, one line per arm."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    arms = scored_arms(result)
    scored = [key for key in keys if any(key in each["metrics"] for each in every(arms))]
    figure, axes = plt.subplots(
        1,
        len(scored),
        figsize=(4.2 * len(scored), 3.6),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, key in zip(axes[0], scored, strict=True):
        for number, (name, entries) in enumerate(arms.items()):
            points = [
                (e["step"], e["metrics"][key]["mean"]) for e in entries if key in e["metrics"]
            ]
            style = "--" if name == result["baseline"] else "-"
            axis.plot(
                *zip(*points, strict=True),
                style,
                marker=".",
                color=f"C{number % 10}",
                label=words(name),
            )
        floors = {each["metrics"][key]["floor"] for each in every(arms) if key in each["metrics"]}
        for floor in floors - {None}:
            axis.axhline(floor, color="black", linestyle=":", linewidth=1)
        axis.set_title(words(key), fontsize=10)
        axis.set_xlabel("training steps")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].legend(fontsize=7)
    counts = " or ".join(str(count) for count in sorted({each["count"] for each in every(arms)}))
    figure.supxlabel(
        f"{counts} samples of one sampling seed; dotted line: real held-out images", fontsize=8
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)


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
