"""How arms are told apart in figures: a colour and a shape that each arm keeps on the whole page.

The colours are after Okabe and Ito (Color Universal Design, 2008), which people with any colour
vision tell apart; in page.css they have a light and a dark form.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

COLOURS = 6
"""Beside the baseline's grey, which is colour 0."""

SHAPES = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "*": "★"}
"""matplotlib's markers, and the signs that look like them in a text."""


class Mark(NamedTuple):
    """The number of a colour of the page, and a marker of matplotlib's."""

    colour: int
    shape: str

    @property
    def sign(self) -> str:
        return SHAPES[self.shape]


def marks(arms: Iterable[str], baseline: str) -> dict[str, Mark]:
    """Each arm's mark: grey for the baseline, and different ones for the next 42 arms."""
    shapes = list(SHAPES)
    others = [name for name in arms if name != baseline]
    return {baseline: Mark(0, shapes[0])} | {
        name: Mark(1 + place % COLOURS, shapes[(place % COLOURS + place // COLOURS) % len(shapes)])
        for place, name in enumerate(others)
    }
