"""What each score is of, in sentences: how many samples, compared with what, in which space, and
whose score its floor is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FLOORS = {
    "equal": "as many of {held_out:,} held-out images",
    "extrapolated": "as many new images, by the line through {held_out:,} held-out ones and their "
    "halves",
    "fewer": "{held_out:,} held-out images, which are fewer, for keys that do not depend on it",
}


def basis(result: Mapping[str, Any]) -> list[str]:
    """A sentence for all scores that are of the same; none of a run from before fw wrote it."""
    scores = [entry for arm in result["arms"].values() for entry in arm["metrics"].items()]
    floored = {key for key, score in scores if score["floor"] is not None}
    keys: dict[str, list[str]] = {}
    for key, score in scores:
        if "basis" in score:
            listed = keys.setdefault(in_words(score["basis"], key in floored), [])
            listed += [] if key in listed else [key]
    return [f"{', '.join(listed)}: {words}." for words, listed in keys.items()]


def in_words(basis: Mapping[str, Any], floored: bool) -> str:
    """`3,000 samples against 1,437 training images, in the space pca; floor: ...`"""
    real = basis["reference_images"]
    against = f"against {real:,} {basis['reference']}" if real else "against no real images"
    floor = f"floor: {FLOORS[basis['floor']].format_map(basis)}" if floored else "no floor"
    return f"{basis['samples']:,} samples {against}, in the space {basis['space']}; {floor}"
