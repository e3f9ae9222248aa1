"""Images, with labels where there are any."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from fw.core.types import ImageSet, Split
from fw.registry import NOTHING, Component, Supervision


class Dataset(Component):
    """Images, with labels where there are any."""

    kind: ClassVar[str] = "dataset"

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image. Read when a recipe is validated, so it must not need the
        files."""

    @property
    @abstractmethod
    def classes(self) -> int:
        """How many classes the labels have; 0 where there are none."""

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"labels"}) if self.classes else frozenset()

    @property
    def own_supervision(self) -> Supervision:
        """What supervised the model that made the images, where a model made them."""
        return NOTHING

    @property
    def class_names(self) -> Sequence[str]:
        """The names of the classes, in the order of their numbers; empty where they have none, or
        where the files that say so are not there. Also read when a recipe is validated."""
        return ()

    @property
    def missing(self) -> str | None:
        """What could not be checked because files are not there, or None. The recipe is then valid,
        with a warning."""
        return None

    def check(self) -> None:
        """Raise ValueError if files are there and are not what the fields say; called when a recipe
        is validated."""

    @abstractmethod
    def load(self, split: Split) -> ImageSet:
        """The split's images; `test` is never trained on. The same fields give the same images
        in the same order."""

    def how_many(self, split: Split) -> int | None:
        """How many images the split has, if that is known without reading any; called when a
        recipe is validated."""
        return None

    def remarks(self) -> Sequence[str]:
        """What a user should know of the images, such as files that were left out. Called after
        both splits were loaded; every run warns of it."""
        return ()
