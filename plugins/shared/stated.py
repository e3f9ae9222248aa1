"""The field `supervision`: what a recipe says of weights whose files do not say it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from fw.core.files.weights import supervision_in
from fw.registry import NOTHING, Neutral, Supervision
from fw.registry.supervision import UNKNOWN, WRITTEN, parsed, strongest


def in_words(value: Any) -> Any:
    """ValueError, clearer than the pattern's, for a text that is no supervision."""
    if isinstance(value, str):
        parsed(value)
    return value


Words = Annotated[str, Field(pattern=WRITTEN), BeforeValidator(in_words)]

Stated = Annotated[
    Words | None,
    Neutral(None),
    Field(
        description=(
            "what the weights were trained with, where their files do not say: nothing, captions, "
            "unknown or labels of X"
        ),
    ),
]


def check_stated(stated: str | None, weights: Path | None) -> None:
    """ValueError if a recipe speaks of weights and names none."""
    if stated is not None and weights is None:
        raise ValueError(
            "`supervision` says what `weights` were trained with, and there are none: leave it out"
        )


def of_weights(weights: Path | None, stated: str | None) -> Supervision:
    """What a file of weights and the recipe say; nothing where there is no file."""
    return NOTHING if weights is None else supervision(supervision_in(weights), stated)


def supervision(in_files: Supervision, stated: str | None) -> Supervision:
    """What the files say. What the recipe states counts where they say nothing, or if it is
    stronger."""
    if stated is None:
        return in_files
    return parsed(stated) if in_files == UNKNOWN else strongest([in_files, parsed(stated)])
