"""Pictures to look at: grids of samples, and the figure that sets the arms side by side."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fw.core.report.panels import draw_floors, finite, panels, words
from fw.core.report.series import Lines
from fw.core.report.statistics import difference, mean

GREY, BLUE = "#8c8c8c", "#3b6fb6"

CUT = 4
"""Bars longer than this, in medians of all arms, are cut, and their length is written on them."""

CONTENT = "Comment"
"""The text in a PNG file that says what was drawn."""

LOGARITHMIC = 10
"""The x axis of a sweep is logarithmic where its values are spaced by ratios, or have no regular
spacing and span more than this factor."""

EVEN = 1.5
"""Steps, or ratios, of which the largest is less than so many times the smallest are regular."""


def save_arms_figure(
    arms: Mapping[str, Mapping[str, Any]], keys: Sequence[str], baseline: str, path: Path
) -> None:
    """Bars of each key, one per arm: mean, standard deviation over seeds, every value, and the
    floor. One that shows the same already is left as it is."""
    scores = {name: {key: arm["metrics"].get(key) for key in keys} for name, arm in arms.items()}
    content = json.dumps([scores, baseline])
    if shows(path, content):
        return

    names, note = list(arms), "mean ± std over seeds; dots: each seed; dotted line: real held-out"
    size = (3.6, 0.42 * len(names) + 1.2)
    with panels(keys, size, f"{note} images", path, {CONTENT: content}, sharey=True) as axes:
        for axis, key in zip(axes, keys, strict=True):
            border = cut(arms, key)
            for row, name in enumerate(names):
                score = arms[name]["metrics"].get(key)
                if score is None:
                    continue
                if not math.isfinite(score["mean"]):
                    place = axis.get_yaxis_transform()
                    axis.text(0.02, row, f"{score['mean']:g}", va="center", transform=place)
                    continue
                axis.barh(
                    row,
                    score["mean"],
                    xerr=score["std"],
                    color=GREY if name == baseline else BLUE,
                    alpha=0.85,
                )
                axis.plot(
                    score["values"], [row] * len(score["values"]), ".", color="black", markersize=4
                )
                if border is not None and score["mean"] > border:
                    axis.text(
                        0.97 * border,
                        row,
                        f"{score['mean']:.3g} \u2192",
                        ha="right",
                        va="center",
                        color="white",
                    )
            draw_floors(axis.axvline, floors(arms, key))
            if border is not None:
                axis.set_xlim(0, border)
            axis.axvline(0, color="black", linewidth=0.8)
        axes[0].set_yticks(range(len(names)), [words(name) for name in names])
        axes[0].set_ylim(len(names) - 0.5, -0.5)


def shows(path: Path, content: str) -> bool:
    """Whether the picture was drawn of this content."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return picture.info.get(CONTENT) == content
    except (OSError, SyntaxError, ValueError):  # not there, or not whole
        return False


def cut(arms: Mapping[str, Mapping[str, Any]], key: str) -> float | None:
    """Where bars are cut that would make the others too short to compare: four times the median,
    if any is longer."""
    means = finite(arm["metrics"][key]["mean"] for arm in arms.values() if key in arm["metrics"])
    border = CUT * statistics.median(means) if means else 0.0
    return border if min(means, default=0.0) >= 0 and max(means, default=0.0) > border > 0 else None


def floors(arms: Mapping[str, Mapping[str, Any]], key: str) -> set[float]:
    """What real held-out images score: one number, or none where they cannot be scored, or not with
    a place on an axis."""
    found = (arm["metrics"][key]["floor"] for arm in arms.values() if key in arm["metrics"])
    return set(finite(floor for floor in found if floor is not None))


def save_sweep_figure(
    lines: Lines,
    arms: Mapping[str, Mapping[str, Any]],
    keys: Sequence[str],
    baseline: str,
    path: Path,
) -> None:
    """Each score against x, one line per series: means, with an interval over trainings or, of one
    training, the standard deviation over its sampling seeds. One that shows the same already is
    left as it is."""
    names = {name for points in lines.series.values() for _, name in points}
    scores = {
        name: {key: arms[name]["metrics"].get(key) for key in keys} for name in (*names, baseline)
    }
    drawn = [lines.key, lines.series, lines.ticks, scores, baseline]
    content = json.dumps(drawn, sort_keys=True)
    if shows(path, content):
        return
    places = sorted({place for points in lines.series.values() for place, _ in points})
    note = f"{spread_in_words(scores)}\ndashed line: baseline; dotted line: real held-out images"
    size, written = (4.2, 3.6), {CONTENT: content}
    with panels(keys, size, note, path, written, sharex=True) as axes:
        for axis, key in zip(axes, keys, strict=True):
            for label, points in lines.series.items():
                scored = [
                    (place, score)
                    for place, name in points
                    if (score := finite_score(arms[name], key)) is not None
                ]
                axis.errorbar(
                    [place for place, _ in scored],
                    [score["mean"] for _, score in scored],
                    yerr=[reach(score) for _, score in scored],
                    marker="o",
                    markersize=4,
                    capsize=3,
                    linestyle="none" if lines.ticks else "-",
                    label=words(label),
                )
            if (of_baseline := finite_score(arms[baseline], key)) is not None:
                mean, far = of_baseline["mean"], reach(of_baseline)
                axis.axhline(mean, color=GREY, linestyle="--", linewidth=1, label=words(baseline))
                axis.axhspan(mean - far, mean + far, color=GREY, alpha=0.2)
            draw_floors(axis.axhline, floors(arms, key))
            if lines.ticks:
                axis.set_xticks(places, [words(lines.ticks[int(place)]) for place in places])
            elif logarithmic(places):
                axis.set_xscale("log")
                axis.set_xticks(places, [f"{place:g}" for place in places], minor=False)
                axis.minorticks_off()
            axis.set_xlabel(words(lines.key))
        axes[0].legend(fontsize=8)


def spread_in_words(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """What error bars are, of scores by arm and key: see `reach`."""
    every = [score for each in scores.values() for score in each.values() if score is not None]
    trainings = max((len(score.get("trainings", ())) for score in every), default=1)
    if trainings > 1:
        return f"mean and 95 % interval over {trainings} training seeds (Student's t)"
    seeds = max((len(score["values"]) for score in every), default=1)
    return f"mean ± std over {seeds} sampling seeds of one training"


def reach(score: Mapping[str, Any]) -> float:
    """How far a score's error bar reaches: of several trainings that of the 95 % interval of their
    mean, of one the standard deviation over its sampling seeds."""
    trainings = [mean(values) for values in score.get("trainings", {}).values()]
    if len(trainings) < 2:
        return float(score["std"])
    interval = difference(trainings).interval
    return 0.0 if interval is None else (interval[1] - interval[0]) / 2


def logarithmic(places: Sequence[float]) -> bool:
    """Whether the spacing of these, in order, is rather geometric than even."""
    if len(places) < 2 or places[0] <= 0:
        return False
    steps = [after - before for before, after in itertools.pairwise(places)]
    ratios = [after / before for before, after in itertools.pairwise(places)]
    uneven, unequal = (max(each) / min(each) for each in (steps, ratios))
    if len(places) > 2 and min(uneven, unequal) < EVEN:
        return unequal < uneven
    return places[-1] > LOGARITHMIC * places[0]


def finite_score(arm: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    """An arm's score, if it has one with a place on an axis."""
    score: Mapping[str, Any] | None = arm["metrics"].get(key)
    return score if score is not None and math.isfinite(score["mean"]) else None


def save_heat_map(answer: Mapping[str, Any], path: Path) -> None:
    """What a linear probe makes of each block at each noise level, on an axis of log SNR: of the
    trained network, of the untrained one in the same colours, and both as lines over the raw
    pixels. `answer` is that of `fw heatmap`."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    blocks, sigmas, places = answer["blocks"], answer["sigmas"], answer["log_snr"]
    scores = {name: answer[name]["held_out"] for name in ("trained", "untrained")}
    every = [value for rows in scores.values() for row in rows for value in row]
    edges = cell_edges(places)
    height = 0.42 * len(blocks) + 1.8
    figure, axes = plt.subplots(
        1,
        3,
        figsize=(1.2 * len(sigmas) + 7.5, height),
        layout="constrained",
        width_ratios=[len(sigmas)] * 2 + [5],
    )
    for axis, (name, rows) in zip(axes, scores.items(), strict=False):
        mesh = axis.pcolormesh(
            edges, range(len(blocks) + 1), rows, vmin=min(every), vmax=max(every), cmap="viridis"
        )
        for row, values in enumerate(rows):
            for place, value in zip(places, values, strict=True):
                dark = value < (min(every) + max(every)) / 2
                colour = "white" if dark else "black"
                axis.text(
                    place,
                    row + 0.5,
                    f"{100 * value:.0f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color=colour,
                )
        axis.set_yticks(
            [row + 0.5 for row in range(len(blocks))], [words(block) for block in blocks]
        )
        axis.set_title(f"{name}: accuracy, %", fontsize=10)
    figure.colorbar(mesh, ax=axes[1])
    for block, values in zip(blocks, scores["trained"], strict=True):
        axes[2].plot(places, values, marker=".", label=words(block))
    control = [max(column) for column in zip(*scores["untrained"], strict=True)]
    axes[2].plot(places, control, color=GREY, linestyle="--", label="untrained, best block")
    axes[2].axhline(answer["pixels"]["held_out"], color="black", linestyle=":", label="raw pixels")
    axes[2].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    axes[2].spines[["top", "right"]].set_visible(False)
    for axis in axes:
        axis.set_xticks(
            places, [f"{place:.1f}\n{sigma:g}" for place, sigma in zip(places, sigmas, strict=True)]
        )
        axis.tick_params(labelsize=7)
    figure.supxlabel("log SNR = -2 ln σ, below it σ: less noise to the right", fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def cell_edges(places: Sequence[float]) -> list[float]:
    """Where cells around these places begin and end: half-way to the next, and as far on the
    other side."""
    if len(places) == 1:
        return [places[0] - 0.5, places[0] + 0.5]
    middles = [(one + other) / 2 for one, other in itertools.pairwise(places)]
    return [2 * places[0] - middles[0], *middles, 2 * places[-1] - middles[-1]]
