"""The scores as figures: arm by arm, and against what arms pay or trade for them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

from markupsafe import Markup
from matplotlib.axes import Axes

from fw.core.plan.graph import ArmPlan
from fw.core.report.figures import cut, finite_score, floors
from fw.core.report.markdown import spread
from fw.core.report.page.marks import Mark
from fw.core.report.page.material import Material
from fw.core.report.page.svg import INK, MARKED, MUTED, inlined, panels, settings, write_out
from fw.core.report.panels import words
from fw.core.report.tables import figure_keys

KEYS = 4
"""Scores of the first figure."""

WIDTH = 11.4
"""Inches of a figure as wide as the page."""

TICKS = 4

LOGARITHMIC = 10
"""An axis is logarithmic where its values span more than this factor."""

TRADED = {"precision": "precision", "recall": "recall"}
"""How keys begin that a distance is traded against."""


@dataclass(frozen=True)
class Figures:
    arms: Markup
    against: Markup | None
    legend: Sequence[tuple[str, Mark]]
    spread: str
    """What standard deviations are over."""


class Series(NamedTuple):
    """Arms along an axis: x by arm, and which arms a line joins."""

    title: str
    places: Mapping[str, float]
    lines: Sequence[Sequence[str]] = ()


@dataclass
class Spreads:
    """Where scores of several arms reach from and to, for one call of matplotlib: many are slow."""

    places: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    colours: list[str] = field(default_factory=list)

    def add(self, place: float, low: float, high: float, colour: str) -> None:
        self.places.append(place)
        self.low.append(low)
        self.high.append(high)
        self.colours.append(colour)


def figures(material: Material) -> Figures | None:
    arms = {name: material.result["arms"][name] for name in material.finished}
    if not arms:
        return None
    return Figures(
        arms=drawn_arms(material, arms),
        against=drawn_against(material, arms),
        legend=[(name, material.marks[name]) for name in arms],
        spread=spread(material.result),
    )


def drawn_arms(material: Material, arms: Mapping[str, Any]) -> Markup:
    """Each score's mean and standard deviation, with every value, and a row for each arm."""
    keys = figure_keys(material.result, KEYS)
    with settings("arms"):
        figure, axes = panels(len(keys), WIDTH / max(len(keys), 3), 0.27 * len(arms) + 0.75)
        for axis, key in zip(axes, keys, strict=True):
            draw_rows(axis, material, arms, key)
            if axis is not axes[0]:
                axis.set_yticklabels([])
        longest = max(len(words(name)) for name in arms)
        left = min(0.4, (0.075 * longest + 0.1) / figure.get_figwidth())
        height = figure.get_figheight()
        figure.subplots_adjust(left, 0.3 / height, 0.99, 1 - 0.35 / height, wspace=0.08)
        return inlined(figure, f"{', '.join(keys)} of each arm, with standard deviations")


def draw_rows(axis: Axes, material: Material, arms: Mapping[str, Any], key: str) -> None:
    border = cut(arms, key)
    dots, lines = Spreads(), Spreads()
    for row, (name, arm) in enumerate(arms.items()):
        score, mark = arm["metrics"].get(key), material.marks[name]
        if score is None:
            continue
        if not math.isfinite(score["mean"]):
            place = axis.get_yaxis_transform()
            axis.text(0.02, row, f"{score['mean']:g}", va="center", color=MUTED, transform=place)
            continue
        if border is not None and score["mean"] > border:
            text = f"{score['mean']:.3g} \u2192"
            axis.text(0.99 * border, row, text, ha="right", va="center", color=MUTED)
            continue
        colour = MARKED[mark.colour]
        for value in score["values"]:
            dots.add(row, value, value, colour)
        lines.add(row, score["mean"] - score["std"], score["mean"] + score["std"], colour)
        axis.plot(score["mean"], row, color=colour, marker=mark.shape, linestyle="")
    axis.scatter(dots.low, dots.places, s=5, color=dots.colours, alpha=0.45, linewidths=0)
    axis.hlines(lines.places, lines.low, lines.high, colors=lines.colours)
    for floor in floors(arms, key):
        axis.axvline(floor, color=INK, linestyle=":", linewidth=1)
    axis.set_yticks(range(len(arms)), [words(name) for name in arms], color=INK)
    axis.set_ylim(len(arms) - 0.5, -0.5)
    axis.tick_params(length=0)
    if border is not None:
        axis.set_xlim(0, border)
    axis.locator_params(axis="x", nbins=TICKS)
    arrow = "\u2193" if material.result["better"][key] == "lower" else "\u2191"
    axis.set_title(f"{words(key)} {arrow}", loc="left")


def drawn_against(material: Material, arms: Mapping[str, Any]) -> Markup | None:
    """The headline score against everything in which arms differ."""
    key = material.result["headline"]
    scored = {name: arm for name, arm in arms.items() if finite_score(arm, key) is not None}
    kinds = [
        each
        for each in (*traded(material, scored), scales(material), *costs(scored))
        if len({each.places[name] for name in scored.keys() & each.places.keys()}) > 1
    ]
    if not kinds:
        return None
    with settings("against"):
        figure, axes = panels(len(kinds), WIDTH / max(len(kinds), 3), 2.7)
        for axis, series in zip(axes, kinds, strict=True):
            draw_against(axis, material, scored, series)
            if axis is not axes[0]:
                axis.set_yticklabels([])
        axes[0].set_ylabel(words(key))
        figure.subplots_adjust(0.6 / figure.get_figwidth(), 0.17, 0.98, 0.98, wspace=0.14)
        return inlined(figure, f"{key} against {', '.join(each.title for each in kinds)}")


def draw_against(axis: Axes, material: Material, arms: Mapping[str, Any], series: Series) -> None:
    key = material.result["headline"]
    border = cut(arms, key)
    for line in series.lines:
        joined = [name for name in line if name in arms]
        axis.plot(
            [series.places[name] for name in joined],
            [arms[name]["metrics"][key]["mean"] for name in joined],
            color=MUTED,
            linewidth=0.9,
            alpha=0.6,
        )
    lines = Spreads()
    for name, place in series.places.items():
        if name in arms:
            score, mark = arms[name]["metrics"][key], material.marks[name]
            colour = MARKED[mark.colour]
            lines.add(place, score["mean"] - score["std"], score["mean"] + score["std"], colour)
            axis.plot(place, score["mean"], color=colour, marker=mark.shape, linestyle="")
    axis.vlines(lines.places, lines.low, lines.high, colors=lines.colours)
    for floor in floors(arms, key):
        axis.axhline(floor, color=INK, linestyle=":", linewidth=1)
    places = [series.places[name] for name in arms if name in series.places]
    if 0 < LOGARITHMIC * min(places) < max(places):
        axis.set_xscale("log")
        write_out(axis.xaxis)
    else:
        axis.locator_params(axis="x", nbins=TICKS)
    if border is not None:
        axis.set_ylim(0, border)
    axis.tick_params(length=0)
    axis.set_xlabel(words(series.title))


def traded(material: Material, arms: Mapping[str, Any]) -> list[Series]:
    """The first score of each kind that a distance is traded against."""
    better = material.result["better"]
    keys = [next((key for key in better if key.startswith(start)), None) for start in TRADED]
    return [
        Series(
            key,
            {
                name: arm["metrics"][key]["mean"]
                for name, arm in arms.items()
                if finite_score(arm, key) is not None
            },
        )
        for key in keys
        if key is not None
    ]


def costs(arms: Mapping[str, Any]) -> list[Series]:
    return [
        Series("network evaluations per image", {name: arm["nfe"] for name, arm in arms.items()}),
        Series("seconds", {name: arm["seconds"] for name, arm in arms.items()}),
    ]


def scales(material: Material) -> Series:
    """Arms by how strong their guidance is, 1 without any; a line joins those that differ in that
    alone."""
    guided = {name: arm for name, arm in material.finished.items() if len(arm.arm.modes) == 1}
    trained = {arm.train for arm in guided.values()}
    bare = {
        name: arm
        for name, arm in material.finished.items()
        if not arm.arm.modes and arm.train in trained
    }
    places = {name: arm.arm.modes[0].scale for name, arm in guided.items()}
    places |= dict.fromkeys(bare, 1.0)
    lines = []
    for alike, names in groupby(
        sorted(guided, key=lambda name: kin(guided[name])), lambda name: kin(guided[name])
    ):
        starts = [name for name, arm in bare.items() if same_but_guidance(arm, alike)]
        lines.append(sorted([*starts[:1], *names], key=places.__getitem__))
    return Series("guidance scale", places, lines)


def kin(arm: ArmPlan) -> tuple[str, str, str]:
    """What an arm is beside the scale of its guidance: its training, its sampler, its guidance."""
    [mode] = arm.arm.modes
    others = [each for each in arm.arm.guidance if each is not mode]
    words = [each.model_dump_json() for each in (*others, mode.model_copy(update={"scale": 1.0}))]
    return arm.train, arm.arm.sampler.model_dump_json(), " ".join([mode.name, *words])


def same_but_guidance(arm: ArmPlan, kin: tuple[str, str, str]) -> bool:
    return (arm.train, arm.arm.sampler.model_dump_json()) == kin[:2]
