"""Some stages of a store made once more, beside it: nothing is written into the store itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from fw.core.store.store import Store


class Anew(Store):
    """The store `base`, but for the stages `anew`, which lie in the folder `root`.

    `names` says what stages are called in `base` that have another id today.
    """

    def __init__(
        self, root: Path, base: Store, anew: Collection[str], names: Mapping[str, str]
    ) -> None:
        super().__init__(root)
        self.base = base
        self.anew = anew
        self.names = names

    def path(self, stage: str) -> Path:
        return super().path(stage) if stage in self.anew else self.base.path(self.before(stage))

    def before(self, stage: str) -> str:
        """What the stage is called in `base`."""
        return self.names.get(stage, stage)

    def damage(self, stage: str) -> str:
        """What is wrong with the product in `base`; empty if nothing is, or there is none."""
        state, reason = self.base.verify(self.before(stage))
        return reason if state == "corrupted" else ""

    def replaced(self, stage: str) -> list[str]:
        """The products in `base` that are not those that the stage's product there was made of."""
        return [each for each in self.base.stale(self.before(stage)) if self.base.readable(each)]

    def digests_of(self, stage: str) -> tuple[str, str] | None:
        """Those of the product in `base` and of the one that was made anew, if both are there."""
        if not (self.base.readable(self.before(stage)) and self.readable(stage)):
            return None
        return self.base.digest(self.before(stage)), self.digest(stage)
