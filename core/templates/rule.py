"""Keep differences between predictions from growing too long."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from fw.core.kinds import Rule
from fw.registry import hookimpl

FW_API = 2


class Example(Rule):
    """A mode's difference is shortened where it is longer than the share `longest` of the good
    prediction."""

    name: ClassVar[str] = "example"

    longest: float = Field(
        0.2, gt=0, le=1000, description="longest difference, as a share of the good prediction"
    )

    def direction(self, good: Tensor, difference: Tensor, memory: dict[str, Tensor]) -> Tensor:
        allowed = self.longest * length(good)
        return difference * (allowed / length(difference).clamp(min=1e-12)).clamp(
            max=1
        )  # (B, C, H, W)


def length(images: Tensor) -> Tensor:
    """The lengths (B, 1, 1, 1) of images (B, C, H, W)."""
    return images.flatten(1).norm(dim=1)[:, None, None, None]


@hookimpl
def fw_components() -> list[type[Rule]]:
    return [Example]
