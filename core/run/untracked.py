"""The tracked run of a recipe without a tracker: it takes everything and keeps nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Untracked:
    """A `fw.core.kinds.TrackedRun`."""

    handle: Mapping[str, Any] = {}
    hint = ""

    def series(self, arm: str | None, records: Sequence[Mapping[str, float]]) -> None:
        pass

    def scores(self, arm: str | None, values: Mapping[str, float]) -> None:
        pass

    def files(self, arm: str | None, paths: Sequence[Path]) -> None:
        pass

    def wants_model(self, arm: str) -> bool:
        return False

    def model(self, arm: str, weights: Path, scores: Mapping[str, float]) -> None:
        pass

    def note(self, markdown: str) -> None:
        pass

    def end_arm(self, arm: str, status: str) -> None:
        pass

    def end(self, status: str) -> None:
        pass
