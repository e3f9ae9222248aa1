"""The hybrid vision transformer HybViT (arXiv 2208.07791, section 3), with the long skips of
U-ViT (2209.12152)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import silu

from fw.core.kinds import Attend, Joint, Move, mixing
from fw.core.kinds.size import check_weights
from fw.core.types import ConditionSpec
from fw.plugins.backbones.dit_blocks import (
    Block,
    FinalLayer,
    LevelEmbedding,
    check_patches,
    check_sizes,
    linear,
    patchify,
    positions,
    unpatchify,
)

INITIAL_STD = 0.02


class HybViT(Joint):
    """A vision transformer whose patches denoise and whose class token recognises (arXiv
    2208.07791).

    The blocks are `dit`'s: noise levels act by adaLN-zero on each channel, where the released code
    scales and shifts each token by one number. They act on the class token too, which is trained in
    noise of every level. The published head is trained on clean images without a level, and cannot
    guide. `skips` are U-ViT's (arXiv 2209.12152), which the authors recommend: each block of the
    second half also gets the output of its counterpart in the first half. The weight of the cross
    entropy is 0.01. The authors weigh 1 to 100, but against the mean absolute error of the noise,
    and this is against the process's squared error. They also train recognition on other images
    than they denoise, strongly augmented ones. Their MLPs are twice as wide as tokens (11M weights
    at depth 9 and width 384), these four times; their positions are learned.

    Attention layers are `blocks.0`, `blocks.1`, ... With classes there is one more token than
    patches, so guidance that needs a grid of tokens (`sag`, `seg` with a finite blur) cannot be
    used; `pag` can.
    """

    name: ClassVar[str] = "hybvit"

    depth: int = Field(5, ge=3, le=1000, description="blocks")
    width: int = Field(64, ge=4, le=16384, description="channels of a token")
    heads: int = Field(4, ge=1, description="attention heads per block")
    patch: int = Field(2, ge=1, description="side of the square of pixels that makes a token")
    skips: bool = Field(
        True, description="long skips between the first and the second half of the blocks"
    )
    weight: float = Field(
        1e-2,
        gt=0,
        allow_inf_nan=True,
        description=(
            "weight of the cross entropy beside the denoising loss; .inf leaves out the latter"
        ),
    )

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        check_sizes(self.width, self.heads)
        return self

    @property
    def provides(self) -> frozenset[str]:
        return super().provides | {"attention", "taps", "steerable"}

    def check(self, shape: tuple[int, int, int]) -> None:
        check_weights(self.name, 18 * self.depth * self.width**2)
        check_patches(self.name, self.patch, shape)

    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        self.check(shape)
        classes = None if condition is None else condition.size
        return JointTransformer(
            shape, self.patch, self.depth, self.width, self.heads, self.skips, classes
        )


class JointTransformer(nn.Module):
    """See `fw.core.kinds.Steerable`. Untrained, it predicts zero. Without `classes` it has no class
    token and no head.

    The hidden tensors, which both tasks share, are the tokens in the middle and those on long skips
    past it.
    """

    positions: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        patch: int,
        depth: int,
        width: int,
        heads: int,
        skips: bool,
        classes: int | None,
    ):
        super().__init__()
        colours, height, across = shape
        self.patch = patch
        self.rows = height // patch
        self.later = (depth - 1) // 2  # blocks after the middle
        self.first = linear(patch * patch * colours, width)
        self.register_buffer(
            "positions", positions(self.rows, across // patch, width)
        )  # (N, width)
        self.level = LevelEmbedding(width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.merges = (
            nn.ModuleList(linear(2 * width, width) for _ in range(self.later)) if skips else None
        )
        self.last = FinalLayer(width, patch * patch * colours)
        self.token = None if classes is None else nn.Parameter(torch.randn(width) * INITIAL_STD)
        self.head = (
            None if classes is None else nn.Sequential(nn.LayerNorm(width), linear(width, classes))
        )

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        condition: Tensor | None = None,
        dropped: Tensor | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        """x (B, C, H, W), noise (B,) -> (B, C, H, W). The condition is not used: see `logits`."""
        conditioning = self._conditioning(noise)
        return self._denoised(
            self._after(self._middle(x, conditioning, attend), conditioning, attend), conditioning
        )

    def both(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        conditioning = self._conditioning(noise)
        tokens = self._after(self._middle(x, conditioning), conditioning)
        return self._denoised(tokens, conditioning), self._recognised(tokens)

    def logits(self, x: Tensor, noise: Tensor) -> Tensor:
        conditioning = self._conditioning(noise)
        return self._recognised(self._after(self._middle(x, conditioning), conditioning))

    def steered(self, x: Tensor, noise: Tensor, move: Move) -> Tensor:
        """The blocks after the middle are computed twice: to read the hidden tensors, and to decode
        the moved ones.

        Only patches are moved: the gradient of the class token is so much longer that they would
        hardly move beside it.
        """
        conditioning = self._conditioning(noise)
        tokens = self._middle(x, conditioning)

        def read(patches: Sequence[Tensor]) -> Tensor:
            return self._recognised(self._after(joined(patches, tokens), conditioning.clone()))

        moved = joined(move([each[:, :-1] for each in tokens], read), tokens)
        return self._denoised(self._after(moved, conditioning), conditioning)

    def taps(self) -> dict[str, nn.Module]:
        """`blocks.0`, `blocks.1`, ...: tokens (B, N + 1, width) after each block, the class
        token last."""
        return {f"blocks.{index}": block for index, block in enumerate(self.blocks)}

    @property
    def repeated(self) -> Sequence[nn.Module]:
        """See `fw.core.kinds.Repeated`."""
        return list(self.blocks)

    def _conditioning(self, noise: Tensor) -> Tensor:
        """The vector that conditions all layers, noise (B,) -> (B, width)."""
        return silu(self.level(noise))

    def _middle(
        self, x: Tensor, conditioning: Tensor, attend: Attend | None = None
    ) -> list[Tensor]:
        """The hidden tensors (B, N + 1, width): those on skips, in the order of the blocks, then
        the middle."""
        tokens = self.first(patchify(x, self.patch)) + self.positions  # (B, N, width)
        if self.token is not None:
            tokens = torch.cat(
                [tokens, self.token.expand(len(x), 1, -1)], dim=1
            )  # (B, N + 1, width)
        outputs = []
        for index, block in enumerate(self.blocks[: len(self.blocks) - self.later]):
            layer = f"blocks.{index}"
            tokens = block(tokens, conditioning, mixing(attend, layer), layer)
            outputs.append(tokens)
        return [*outputs[: self.later], tokens] if self.merges is not None else [tokens]

    def _after(
        self, hidden: Sequence[Tensor], conditioning: Tensor, attend: Attend | None = None
    ) -> Tensor:
        """The tokens that the last block returns (B, N + 1, width)."""
        *carried, tokens = hidden
        for number in range(self.later):
            index = len(self.blocks) - self.later + number
            if self.merges is not None:
                tokens = self.merges[number](torch.cat([tokens, carried.pop()], dim=2))
            layer = f"blocks.{index}"
            tokens = self.blocks[index](tokens, conditioning, mixing(attend, layer), layer)
        return tokens

    def _denoised(self, tokens: Tensor, conditioning: Tensor) -> Tensor:
        patches = tokens if self.token is None else tokens[:, :-1]  # (B, N, width)
        return unpatchify(self.last(patches, conditioning), self.patch, self.rows)

    def _recognised(self, tokens: Tensor) -> Tensor:
        if self.head is None:
            raise ValueError("this hybvit was built without classes, so it has no logits")
        return self.head(tokens[:, -1])  # (B, K)


def joined(patches: Sequence[Tensor], tokens: Sequence[Tensor]) -> list[Tensor]:
    """Other patches (B, N, width) with the class tokens of `tokens` (B, N + 1, width)."""
    return [
        torch.cat([other, each[:, -1:].clone()], dim=1)
        for other, each in zip(patches, tokens, strict=True)
    ]
