"""The backbone and the views of methods that bring random views of one image together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from fw.core.learning.rows import ALONE, Rows
from fw.core.machine.precision import autocast
from fw.plugins.encoders.self_supervised import SelfSupervised
from fw.plugins.encoders.trunks import BACKBONES, ImageEncoder
from fw.plugins.encoders.views import ABOUT, VIEWS, unsuited, views_for


class JointEmbedding(SelfSupervised):
    """Brings random views of one image together, in the features of a backbone."""

    backbone: Literal["conv", "resnet18", "vit_tiny"] = Field(
        "conv",
        description=(
            "conv: a few convolutions; resnet18: with a 3x3 stem; vit_tiny: with 8x8 patches"
        ),
    )
    width: int = Field(
        128, ge=8, le=16384, multiple_of=4, description="feature dimension of the conv backbone"
    )
    augment: Literal["auto", "digits", "photos"] = Field("auto", description=ABOUT)

    def suited(self, shape: tuple[int, int, int]) -> Self:
        return self.model_copy(update={"augment": views_for(self.augment, shape)})

    def cautions(self, shape: tuple[int, int, int], images: int | None) -> Iterator[str]:
        yield from super().cautions(shape, images)
        if self.weights is None:
            yield from unsuited(self.name, self.augment, shape)

    @property
    def in_short(self) -> str:
        return self.name if self.weights is not None else f"{self.name}, {self.augment} views"

    def check(self, shape: tuple[int, int, int]) -> None:
        _, height, width = shape
        if self.backbone == "vit_tiny" and (height != width or height % 8):
            raise ValueError(
                f"encoder {self.name}: vit_tiny needs square images whose side divides by 8, not "
                f"{height}x{width}"
            )

    def build(self, shape: tuple[int, int, int], classes: int) -> ImageEncoder:
        self.check(shape)
        return ImageEncoder(*BACKBONES[self.backbone](shape, self.width))

    def views(
        self,
        images: Tensor,
        count: int,
        generator: torch.Generator,
        local: bool = False,
        rows: Rows = ALONE,
    ) -> Tensor:
        """`count` views (count * B, C, H, W) in -1..1 of images (B, C, H, W) in 0..1, view by
        view."""
        if not count:
            return images[:0]
        _, *shape = images.shape
        view = VIEWS[views_for(self.augment, (shape[0], shape[1], shape[2]))]
        with autocast("fp32", images.device):  # images are not blurred in bf16
            return 2 * view(images.repeat(count, 1, 1, 1), local, generator, rows) - 1
