"""Fields that datasets of encoded images share: size, colours, and where they are kept decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Le
from pydantic import Field

Side = Annotated[int, Ge(1), Le(4096)]
Size = Annotated[
    Side | tuple[Side, Side], Field(examples=[32], description="height and width in pixels, or one number for both")
]
Channels = Annotated[Literal[1, 3], Field(description="1 for grey, 3 for RGB")]
Cache = Annotated[Path | None, Field(description="for decoded images; null is $FW_CACHE_DIR or ~/.cache/fw")]


def image_shape(channels: int, size: int | tuple[int, int]) -> tuple[int, int, int]:
    """(C, H, W)"""
    height, width = size if isinstance(size, tuple) else (size, size)
    return channels, height, width
