"""What supervised the weights that a component brings with it: a fact about where they come from,
which is not in its results and which label-freeness depends on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal, get_args

Kind = Literal["nothing", "unknown", "captions", "labels"]
STRENGTH: tuple[Kind, ...] = get_args(Kind)
"""The weakest first. Captions are stronger than what is unknown, because something is known."""

LONGEST = 100
"""Characters of the name of data."""
CONTROL = r"\x00-\x1f\x7f-\x9f"
WRITTEN = (
    r"^(nothing|unknown|captions|"
    rf"labels( of [^\s{CONTROL}][^{CONTROL}]{{0,{LONGEST - 1}}})?)$"
)
"""A supervision in words; the file that they are read from may be anybody's."""


@dataclass(frozen=True)
class Supervision:
    """`nothing`: no weights, or weights that were trained without labels and texts. `captions`:
    texts, which may name classes. `labels`, of `data`. `unknown`: nobody says."""

    kind: Kind
    data: str = ""
    remark: str = field(default="", compare=False)
    """What else a user should know."""

    @property
    def strength(self) -> int:
        return STRENGTH.index(self.kind)

    def __str__(self) -> str:
        return f"{self.kind} of {self.data}" if self.data else self.kind


NOTHING, UNKNOWN, CAPTIONS = (Supervision(kind) for kind in ("nothing", "unknown", "captions"))


def labels_of(data: str) -> Supervision:
    return Supervision("labels", data[:LONGEST])


def parsed(words: str) -> Supervision:
    """The supervision in words that `str` made; ValueError if they are none."""
    if not re.fullmatch(WRITTEN, words):
        raise ValueError(f"'{words}' is none of nothing, captions, unknown and labels of X")
    kind, _, data = words.partition(" of ")
    return Supervision(next(each for each in STRENGTH if each == kind), data)


def strongest(several: Iterable[Supervision]) -> Supervision:
    """The strongest, the first of equal ones; nothing if there is none."""
    return max(several, key=lambda each: each.strength, default=NOTHING)


WORDS = "weights|checkpoint|ckpt|pretrained|hub|repo|url|path|file|folder|model"
TELLING = re.compile(rf"(?:^|_)(?:{WORDS})(?:_|$)")
"""Words in the names of fields that, as text, name a file, a folder or a model of a hub."""


def names_weights(name: str, value: Any) -> bool:
    """Whether a field with this value names a file, a folder or a model of a hub."""
    if isinstance(value, list | tuple):
        return any(names_weights(name, each) for each in value)
    if isinstance(value, bool):
        return value and "pretrained" in name
    return isinstance(value, PurePath) or (
        isinstance(value, str) and bool(value) and TELLING.search(name) is not None
    )
