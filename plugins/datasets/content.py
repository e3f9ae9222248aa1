"""The content of a dataset's files, wherever they lie, as 16 hex digits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from fw.core.errors import MissingFile

Content = Annotated[
    str | None,
    Field(
        pattern="^[0-9a-f]{16}$",
        description="the fingerprint that the files must have; null: any",
    ),
]


def content_digest(fingerprints: Iterable[str]) -> str:
    """The 16 digits for several lists of files, in order."""
    return hashlib.sha256("".join(fingerprints).encode()).hexdigest()[:16]


def check_content(whose: str, expected: str, actual: str) -> None:
    """MissingFile, beginning with `whose`, if the files are others than the recipe expects."""
    if actual != expected:
        raise MissingFile(
            f"{whose} holds other files than the recipe asks for: their fingerprint is {actual}, "
            f"and `content` is {expected}"
        )
