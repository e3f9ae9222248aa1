"""How trainings went: the loss of each denoiser and, where snapshots were scored, their scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from markupsafe import Markup
from matplotlib.axes import Axes

from fw.core.report.figures import words
from fw.core.report.page.marks import Mark
from fw.core.report.page.material import Material
from fw.core.report.page.svg import MARKED, inlined, panels, settings, write_out

LOSS = "train/loss"
LOG = "log.jsonl"

STEEP = 5
"""Losses that span more than this factor are on a logarithmic axis."""

SMOOTHED = 50
"""A loss is drawn as the means of so many parts of its log, at most: single batches differ."""


class Curve(NamedTuple):
    mark: Mark
    steps: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class Training:
    """A denoiser: the mark of its curve, the first of its arms', and the arms that it is of."""

    mark: Mark
    title: str
    arms: Sequence[str]


@dataclass(frozen=True)
class Curves:
    drawn: Markup
    trainings: Sequence[Training]
    key: str
    """The score of snapshots; empty where there are none."""
    count: int
    """How many samples of each snapshot were scored."""


def curves(material: Material) -> Curves | None:
    trained: dict[str, list[str]] = {}
    for name, arm in material.finished.items():
        trained.setdefault(arm.train, []).append(name)
    losses = {
        stage: Curve(material.marks[names[0]], *loss)
        for stage, names in trained.items()
        if (loss := losses_of(material, stage)) is not None
    }
    if not losses:
        return None
    key = material.result["headline"]
    scored = snapshots(material, key)
    with settings("curves"):
        figure, axes = panels(2 if scored else 1, 5.7, 2.9)
        draw(axes[0], losses.values(), "loss of the denoiser")
        if scored:
            draw(axes[1], scored.values(), f"{key} of snapshots")
        figure.subplots_adjust(0.5 / figure.get_figwidth(), 0.16, 0.98, 0.9, wspace=0.14)
        drawn = inlined(figure, "curves of the trainings")
    trainings = [
        Training(material.marks[names[0]], material.plan.stages[stage].title, names)
        for stage, names in trained.items()
    ]
    return Curves(drawn, trainings, key if scored else "", counted(material) if scored else 0)


def losses_of(material: Material, stage: str) -> tuple[list[float], list[float]] | None:
    """A training's steps and smoothed losses, of its log."""
    path = material.file(stage, LOG)
    if path is None:
        return None
    records = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    points = [(record["step"], record[LOSS]) for record in records if LOSS in record]
    if not points:
        return None
    size = -(-len(points) // SMOOTHED)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    steps, values = zip(*[map(mean, zip(*part, strict=True)) for part in parts], strict=True)
    return list(steps), list(values)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def snapshots(material: Material, key: str) -> dict[str, Curve]:
    """The scores of each arm's snapshots by step, of arms that have any."""
    made = {}
    for name, arm in material.result["arms"].items():
        points = [
            (entry["step"], entry["metrics"][key]["mean"])
            for entry in arm.get("snapshots", ())
            if key in entry["metrics"]
        ]
        if points:
            steps, values = zip(*sorted(points), strict=True)
            made[name] = Curve(material.marks[name], steps, values)
    return made


def counted(material: Material) -> int:
    arms: Mapping[str, Any] = material.result["arms"]
    return max(
        (each["count"] for arm in arms.values() for each in arm.get("snapshots", ())), default=0
    )


def draw(axis: Axes, lines: Any, title: str) -> None:
    lines = list(lines)
    few = max(len(line.steps) for line in lines) <= 12
    for line in lines:
        axis.plot(
            line.steps,
            line.values,
            color=MARKED[line.mark.colour],
            marker=line.mark.shape,
            markersize=4,
            markevery=1 if few else 0.12,
        )
    values = [value for line in lines for value in line.values]
    if 0 < STEEP * min(values) < max(values):
        axis.set_yscale("log")
        write_out(axis.yaxis)
    axis.set_title(words(title), loc="left")
    axis.set_xlabel("step")
    axis.tick_params(length=0)
