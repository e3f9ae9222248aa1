"""Figures of matplotlib as part of the page: SVG whose colours and letters are the page's own, so
that they follow it into the dark and onto paper."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from fw.core.report.page.marks import COLOURS

INK, MUTED, RULE = "#010101", "#020202", "#030303"
MARKED = [f"#0101{number:02x}" for number in range(16, 17 + COLOURS)]
"""Colours that stand for those of the page while matplotlib draws: of text, of what is beside it,
of lines, and of each mark."""

OF_PAGE = {INK: "var(--ink)", MUTED: "var(--muted)", RULE: "var(--rule)"} | {
    colour: f"var(--c{number})" for number, colour in enumerate(MARKED)
}

SETTINGS: Any = {  # matplotlib lists the names of all its settings as types
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.facecolor": "none",
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "figure.facecolor": "none",
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.4,
    "lines.markersize": 5.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
}

WITHOUT = {"Date": None, "Creator": None, "Format": None, "Type": None}
"""Facts that matplotlib would write into the file."""

OWN_IDS = re.compile(r' id="[A-Za-z][A-Za-z0-9.]*_\d+"')
"""matplotlib's names of groups; nothing refers to them, and each figure has the same ones."""

FONT = re.compile(r"'DejaVu Sans'[^;\"]*")


def settings(salt: str) -> Any:
    """matplotlib as the page wants it; `salt` keeps the ids of different figures apart."""
    return rc_context(SETTINGS | {"svg.hashsalt": salt})


def panels(count: int, width: float, height: float) -> tuple[Figure, Sequence[Axes]]:
    """A figure with `count` panels side by side, each so many inches wide and high."""
    figure = Figure(figsize=(width * count, height))
    FigureCanvasSVG(figure)
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def write_out(axis: Axis) -> None:
    """Write the numbers of a logarithmic axis out."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def inlined(figure: Figure, about: str) -> Markup:
    """The figure as an element of the page, which `about` describes to those who cannot see it."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=WITHOUT)
    drawn = file.getvalue()
    body = drawn[drawn.index(">", drawn.index("<svg")) + 1 :]
    width, height = (72 * inches for inches in figure.get_size_inches())
    box = f'viewBox="0 0 {width:g} {height:g}" style="max-width: {width / 0.75:.0f}px"'
    opening = f'<svg class="figure" role="img" aria-label="{escape(about)}" {box}>'
    return Markup(opening + restyled(body))


def restyled(body: str) -> str:
    body = OWN_IDS.sub("", body.replace("xlink:href", "href"))
    return coloured(FONT.sub("var(--sans)", body), OF_PAGE)


def coloured(text: str, colours: Mapping[str, str]) -> str:
    return re.sub("#[0-9a-f]{6}", lambda match: colours.get(match[0], match[0]), text)
