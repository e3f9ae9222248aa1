"""The fields of all datasets of encoded images: size, colours, how more than 8 bits become 8, and
the folder for decoded images."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le
from pydantic import Field, model_validator
from torch import Tensor

from fw.core.kinds import Dataset
from fw.core.types import SPLITS, ImageSet, Split
from fw.plugins.datasets.decoded import Decoded
from fw.plugins.shared.stated import Words
from fw.registry import NOTHING, Neutral, Supervision
from fw.registry.supervision import parsed

Side = Annotated[int, Ge(1), Le(4096)]
Size = Annotated[
    Side | tuple[Side, Side],
    Field(examples=[32], description="height and width in pixels, or one number for both"),
]
Channels = Annotated[Literal[1, 3], Field(description="1 for grey, 3 for RGB")]
Cache = Annotated[
    Path | None, Field(description="for decoded images; null is $FW_CACHE_DIR or ~/.cache/fw")
]

IMAGES_AT_ONCE = 250
"""Of those that are searched for colours: they are on disk, and may be many."""


def image_shape(channels: int, size: int | tuple[int, int]) -> tuple[int, int, int]:
    """(C, H, W)"""
    height, width = size if isinstance(size, tuple) else (size, size)
    return channels, height, width


class Encoded(Dataset):
    """A dataset of image files. Its spec leaves out the newer fields where they change nothing, and
    its identity the fields that only say where files lie."""

    PLACES: ClassVar[frozenset[str]]
    NEUTRAL: ClassVar[dict[str, Any]] = {
        "range": None,
        "drop_repeats": False,
        "supervision": None,
    }

    range: tuple[float, float] | None = Field(
        None,
        description=(
            "black and white of images with more than 8 bits per channel; null: as docs/data.md "
            "says"
        ),
    )
    drop_repeats: bool = Field(
        False, description="leave out training images that are equal to a held-out one"
    )

    supervision: Annotated[
        Words | None,
        Neutral(None),
        Field(
            description=(
                "where a model made the images: what it was trained with, as nothing, captions, "
                "unknown or labels of X"
            ),
        ),
    ] = None

    @property
    def own_supervision(self) -> Supervision:
        if self.supervision is None:
            return NOTHING
        return replace(parsed(self.supervision), remark="a model made its images")

    @model_validator(mode="after")
    def black_below_white(self) -> Encoded:
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(
                "`range` is black and white, such as [0, 4095]: the first number is the smaller one"
            )
        return self

    def spec(self) -> dict[str, Any]:
        """Without fields at neutral values: keys stay as they were before these fields."""
        spec = super().spec()
        return {
            key: value
            for key, value in spec.items()
            if key not in self.NEUTRAL or value != self.NEUTRAL[key]
        }

    def identity(self) -> dict[str, Any]:
        """Without `PLACES`, and with the size as two numbers."""
        identity = super().identity()
        fields = {key: value for key, value in identity.items() if key not in self.PLACES}
        return {**fields, "size": list(self.shape[1:])}

    @abstractmethod
    def decoded(self, split: Split) -> Decoded:
        """The images of a split; MissingFile if the files are not what the recipe says."""

    def load(self, split: Split) -> ImageSet:
        images, labels, *_ = self.decoded(split)
        return ImageSet(images, labels, self.classes) if self.classes else ImageSet(images)

    def remarks(self) -> list[str]:
        splits = {split: self.decoded(split) for split in SPLITS}
        remarks = [text for split, each in splits.items() for text in each.remarks(split)]
        if without_colour(splits["train"].images):
            remarks.append(
                "its images are grey in three equal channels, and what suits photographs is chosen "
                "for RGB: say `channels: 1`"
            )
        return remarks


def without_colour(images: Tensor) -> bool:
    """Whether RGB images (N, 3, H, W) have no colour at all; read as far as the first that has."""
    return images.shape[1] == 3 and all(
        batch.eq(batch[:, :1]).all() for batch in images.split(IMAGES_AT_ONCE)
    )
