"""The text of a `--set`: `train.steps=2000`, `metrics.0.space=pca`, `metrics+=prdc`,
`arms."self_1.5"={}`."""

from __future__ import annotations

import re
from dataclasses import dataclass

WORD = re.compile(
    r"""\s*(?:"(?P<double>[^"]+)"|'(?P<single>[^']+)'"""
    r"""|(?P<plain>(?:[^."'=\[\]+]|\+(?!=))+))"""
)
"""A part of a key, up to a dot, `=` or `+=`; quoted, it may hold them."""

EXPECTED = "expected KEY=VALUE, such as --set train.steps=2000"


@dataclass(frozen=True)
class Assignment:
    """What one `--set` says."""

    words: tuple[str, ...]
    """The parts of the key. One that was quoted is a part as it is, dots included; others may be
    joined again, where the recipe has such a key."""
    quoted: frozenset[int]
    """Which of the words were."""
    value: str
    """The text of the value, YAML."""
    appends: bool
    """Whether the value is one more entry of the list that the key leads to."""

    @property
    def key(self) -> str:
        return ".".join(self.words)


def parse(text: str) -> Assignment:
    """ValueError, with what would be right, for a text that is no assignment."""
    words: list[str] = []
    quoted: set[int] = set()
    place = 0
    while (word := WORD.match(text, place)) is not None:
        if word["plain"] is None:
            quoted.add(len(words))
        words.append(word["double"] or word["single"] or word["plain"].strip())
        place = word.end()
        if text[place : place + 1] != ".":
            break
        place += 1
    if text[place : place + 1] == "[":
        index = text[place + 1 :].partition("]")[0]
        right = f".{index}" if index else "+=VALUE"
        raise ValueError(f"no brackets: write {text[:place]}{right}")
    equals = next((each for each in ("=", "+=") if text.startswith(each, place)), None)
    if not words or not all(words) or equals is None:
        raise ValueError(EXPECTED)
    value = text[place + len(equals) :]
    return Assignment(tuple(words), frozenset(quoted), value, appends=equals == "+=")
