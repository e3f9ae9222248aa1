"""How a score is called: by its bare name in the space where it is at home, with the space's
name in any other."""

from __future__ import annotations

from fw.core.kinds import Encoder


def key_in(space: Encoder, score: str, home: str) -> str:
    """`precision` in the space called `home`, `precision_pca` in the space pca."""
    return score if space.name == home else f"{score}_{space.name}"
