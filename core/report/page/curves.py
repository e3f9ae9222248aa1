"""How trainings went: the loss of each denoiser and, where snapshots were scored, their scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from markupsafe import Markup
from matplotlib.axes import Axes

from fw.core.report.curves import curve
from fw.core.report.page.marks import Mark
from fw.core.report.page.material import Material
from fw.core.report.page.svg import MARKED, inlined, panels, settings, write_out
from fw.core.report.panels import words

LOSS, LOSS_OF_ENCODER = "train/loss", "loss"
LOG = "log.jsonl"

WIDTH = 11.4
"""Inches of a figure as wide as the page."""

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
    """A denoiser or an encoder: the mark of its curve, the first of its arms', and its arms."""

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
    trained, encoded = users(material, "train"), users(material, "encode")
    key = material.result["headline"]
    scored = snapshots(material, key)
    panes = {
        "loss of the denoiser": losses(material, trained, LOSS),
        f"{key} of snapshots": scored,
        "loss of the encoder": losses(material, encoded, LOSS_OF_ENCODER),
    }
    panes = {title: lines for title, lines in panes.items() if lines}
    if not panes:
        return None
    with settings("curves"):
        figure, axes = panels(len(panes), WIDTH / max(len(panes), 2), 2.9)
        for axis, (title, lines) in zip(axes, panes.items(), strict=True):
            draw(axis, lines, title)
        figure.subplots_adjust(0.5 / figure.get_figwidth(), 0.16, 0.98, 0.9, wspace=0.16)
        drawn = inlined(figure, ", ".join(panes))
    trainings = [
        Training(material.marks[names[0]], material.plan.stages[stage].title, names)
        for stage, names in {**trained, **encoded}.items()
    ]
    return Curves(drawn, trainings, key if scored else "", counted(material) if scored else 0)


def users(material: Material, role: Literal["train", "encode"]) -> dict[str, list[str]]:
    """The finished arms by their trainings, or by the encoders that their conditions are made
    of."""
    made: dict[str, list[str]] = {}
    for name, arm in material.finished.items():
        stage = arm.train if role == "train" else arm.encode
        if stage is not None and material.file(stage, LOG) is not None:
            made.setdefault(stage, []).append(name)
    return made


def losses(material: Material, stages: Mapping[str, Sequence[str]], key: str) -> list[Curve]:
    """The losses of these stages that log any, with the marks of the first of their arms."""
    found = {stage: losses_of(material, stage, key) for stage in stages}
    return [
        Curve(material.marks[stages[stage][0]], *loss)
        for stage, loss in found.items()
        if loss is not None
    ]


def losses_of(material: Material, stage: str, key: str) -> tuple[list[float], list[float]] | None:
    """A training's steps and smoothed losses, of its log."""
    path = material.file(stage, LOG)
    if path is None:
        return None
    records = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    points = [(record["step"], record[key]) for record in records if key in record]
    if not points:
        return None
    size = -(-len(points) // SMOOTHED)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    steps, values = zip(*[map(mean, zip(*part, strict=True)) for part in parts], strict=True)
    return list(steps), list(values)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def snapshots(material: Material, key: str) -> list[Curve]:
    """The scores of each arm's snapshots by step, of arms that have any."""
    made = []
    for name, arm in material.result["arms"].items():
        if points := curve(arm.get("snapshots", ()), key):
            steps, values = zip(*points, strict=True)
            made.append(Curve(material.marks[name], steps, values))
    return made


def counted(material: Material) -> int:
    arms: Mapping[str, Any] = material.result["arms"]
    return max(
        (each["count"] for arm in arms.values() for each in arm.get("snapshots", ())), default=0
    )


def draw(axis: Axes, lines: Sequence[Curve], title: str) -> None:
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
