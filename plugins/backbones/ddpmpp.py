"""The U-Net DDPM++ (Score-SDE, arXiv 2011.13456, appendix H) in the shape that EDM trains (arXiv
2206.00364, appendix F)."""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import silu

from fw.core.diffusion.conditioning import ConditionEmbedding
from fw.core.kinds import Attend, Backbone, scaled_dot_product
from fw.core.kinds.size import check_weights
from fw.core.types import ConditionSpec
from fw.plugins.backbones.ddpmpp_blocks import (
    Block,
    Down,
    Middle,
    Up,
    convolution,
    double,
    half,
    linear,
    norm,
    waves,
)
from fw.plugins.backbones.levels import check_attention, check_halving


class DDPMPP(Backbone):
    """The U-Net DDPM++ as EDM trains it (arXiv 2206.00364); attention layers are `down.1.0`, ...,
    `mid`, `up.0.1`, ...

    EDM's network for CIFAR-10 (55.7M weights) is width 128, multipliers [2, 2, 2], layers 4,
    attention [1] and dropout 0.13. At a level with attention, it stands behind every residual block
    of the encoder and the last one of the decoder; in the middle there is always one. Classes and
    vectors are added to the sines and cosines of the noise level, and so is a linear map of the
    nine numbers that say how an image was augmented.
    """

    name: ClassVar[str] = "ddpmpp"
    augmentation_size: ClassVar[int] = 9

    width: int = Field(
        16,
        ge=4,
        le=16384,
        multiple_of=4,
        description="channels that multipliers multiply; 16 suits digits, EDM has 128",
    )
    multipliers: tuple[Annotated[int, Field(ge=1, le=64)], ...] = Field(
        (2, 2), min_length=1, description="widths per level; each level halves the image"
    )
    layers: int = Field(
        1, ge=1, le=1000, description="residual blocks per level; the decoder has one more"
    )
    attention: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (1,), description="levels with self-attention, 0 is full resolution; the middle has it too"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout in the residual blocks")

    @model_validator(mode="after")
    def _levels(self) -> Self:
        check_attention(self.attention, len(self.multipliers), "multipliers")
        return self

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"attention", "taps"})

    def check(self, shape: tuple[int, int, int]) -> None:
        squares = self.width**2 * sum(times**2 for times in self.multipliers)
        check_weights(self.name, squares * (45 * self.layers + 63))
        check_halving(self.name, len(self.multipliers), "multipliers", shape)

    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        self.check(shape)
        return UNetPP(shape[0], self, condition)


class UNetPP(nn.Module):
    """See `fw.core.kinds.Augmentable`. Untrained, it predicts zero."""

    def __init__(self, colours: int, fields: DDPMPP, condition: ConditionSpec | None):
        super().__init__()
        width, depth = fields.width, fields.layers
        widths = [width * times for times in fields.multipliers]
        block = partial(Block, embedding_width=4 * width, dropout=fields.dropout)

        self.embedding = Embedding(width, fields.augmentation_size, condition)
        self.first = convolution(colours, width)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        before = width  # the channels of the block before
        waiting = [width]  # those of all that the decoder reads, the latest last
        for level, after in enumerate(widths):
            blocks = [block(before, before, resample=half)] if level > 0 else []
            for index in range(depth):
                layer = f"down.{level}.{index}" if level in fields.attention else None
                blocks.append(block(before, after, layer=layer))
                before = after
            self.down.append(Down(blocks))
            waiting += [each.outputs for each in blocks]
        self.middle = Middle([block(before, before, layer="mid"), block(before, before)])
        for number, level in enumerate(reversed(range(len(widths)))):
            larger = block(before, before, resample=double) if number > 0 else None
            blocks = []
            for index in range(depth + 1):
                attends = level in fields.attention and index == depth
                layer = f"up.{number}.{index}" if attends else None
                blocks.append(block(before + waiting.pop(), widths[level], layer=layer))
                before = widths[level]
            self.up.append(Up(larger, blocks))
        self.joins = depth + 1
        self.last = nn.Sequential(norm(before), nn.SiLU(), convolution(before, colours, variance=0))

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        condition: Tensor | None = None,
        dropped: Tensor | None = None,
        attend: Attend | None = None,
        augmentation: Tensor | None = None,
    ) -> Tensor:
        """x (B, C, H, W), noise (B,), augmentation (B, 9) -> (B, C, H, W)"""
        embedding = self.embedding(noise, condition, dropped, augmentation)  # (B, 4 * width)
        attend = attend or scaled_dot_product
        x = self.first(x)
        skips = [x]
        for block in self.down:
            x, outputs = block(x, embedding, attend)
            skips += outputs
        x = self.middle(x, embedding, attend)
        for block in self.up:
            x = block(x, skips[-self.joins :], embedding, attend)
            del skips[-self.joins :]
        return self.last(x)

    def taps(self) -> dict[str, nn.Module]:
        """`down.0`, ..., `mid`, `up.0`, ...: maps (B, C, h, w) after each level; `up.0` is the
        coarsest."""
        down = {f"down.{level}": block for level, block in enumerate(self.down)}
        up = {f"up.{number}": block for number, block in enumerate(self.up)}
        return {**down, "mid": self.middle, **up}


class Embedding(nn.Module):
    """What all blocks are given: the noise level, the condition and the augmentation of each image
    as a vector (B, 4 * width)."""

    def __init__(self, width: int, augmentations: int, condition: ConditionSpec | None):
        super().__init__()
        self.width = width
        self.augmentation = nn.Linear(augmentations, width, bias=False)
        nn.init.xavier_uniform_(self.augmentation.weight)
        self.condition = None if condition is None else ConditionEmbedding(condition, width)
        self.first = linear(width, 4 * width)
        self.last = linear(4 * width, 4 * width)

    def forward(
        self,
        noise: Tensor,
        condition: Tensor | None,
        dropped: Tensor | None,
        augmentation: Tensor | None,
    ) -> Tensor:
        if augmentation is None:
            augmentation = noise.new_zeros(len(noise), self.augmentation.in_features)
        embedding = waves(noise, self.width) + self.augmentation(augmentation)  # (B, width)
        if self.condition is not None:
            embedding = embedding + self.condition(condition, dropped, len(noise))
        elif condition is not None:
            raise ValueError("this ddpmpp was built without conditions, so it cannot take one")
        return silu(self.last(silu(self.first(embedding))))
