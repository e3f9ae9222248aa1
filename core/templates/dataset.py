"""Drawn images of soft spots, in four classes."""

from typing import ClassVar

import torch
from pydantic import Field

from fw.core.kinds import Dataset
from fw.core.types import ImageSet, Split
from fw.registry import hookimpl

FW_API = 2


class Example(Dataset):
    """One soft spot per image, (N, 1, side, side); its class is the quadrant that it lies in."""

    name: ClassVar[str] = "example"

    side: int = Field(8, ge=4, le=256, description="height and width in pixels")
    count: int = Field(
        400, ge=8, le=1_000_000, description="training images; half as many are held out"
    )

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, self.side, self.side

    @property
    def classes(self) -> int:
        return 4

    def load(self, split: Split) -> ImageSet:
        count = self.count if split == "train" else self.count // 2
        draw = torch.Generator().manual_seed(0 if split == "train" else 1)
        labels = torch.arange(count) % self.classes  # (N,)
        quadrant = torch.stack([labels // 2, labels % 2])  # (2, N): below or above, right or left
        centre = (
            (quadrant + 0.3 + 0.4 * torch.rand(2, count, generator=draw)) * self.side / 2
        )  # (2, N)
        pixels = torch.arange(self.side) + 0.5
        y, x = (
            torch.exp(-((pixels - at[:, None]) / (0.15 * self.side)).square()) for at in centre
        )  # (N, side) each
        spots = y[:, None, :, None] * x[:, None, None, :]  # (N, 1, side, side) in 0..1
        return ImageSet((255 * spots).round().to(torch.uint8), labels, self.classes)


@hookimpl
def fw_components() -> list[type[Dataset]]:
    return [Example]
