"""A joint model after JDM (arXiv 2301.13622): a small U-Net whose deepest features also
recognise the class."""

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator
from torch import nn

from fw.core.kinds import Joint
from fw.core.types import ConditionSpec
from fw_joint.network import GROUPS, TwoHeads


class JointUNet(Joint):
    """A small U-Net for 8x8 to 32x32 images that denoises and, from its deepest features,
    recognises."""

    name: ClassVar[str] = "joint_unet"

    channels: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (16, 32), min_length=1, description="channels per level; each level halves the image"
    )
    weight: float = Field(
        1e-2, gt=0, description="weight of the classification loss beside the denoising loss"
    )

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        for width in self.channels:
            if width % GROUPS or width == GROUPS:
                raise ValueError(
                    f"channels {width} is not {2 * GROUPS}, {3 * GROUPS} or a larger multiple of "
                    f"{GROUPS}"
                )
        return self

    def check(self, shape: tuple[int, int, int]) -> None:
        smallest = 2 ** (len(self.channels) - 1)
        if shape[1] % smallest or shape[2] % smallest:
            raise ValueError(
                f"joint_unet with {len(self.channels)} levels needs sides that are multiples of "
                f"{smallest}, and these "
                f"images are {shape[1]}x{shape[2]}: take fewer entries in `channels`"
            )

    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        self.check(shape)
        return TwoHeads(shape[0], self.channels, None if condition is None else condition.size)
