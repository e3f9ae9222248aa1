"""The diffusion transformer DiT with adaLN-zero (arXiv 2212.09748; SiT, arXiv 2401.08740, is the
same network)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import silu

from fw.core.diffusion.conditioning import ConditionEmbedding, TokenEmbedding
from fw.core.kinds import Attend, Backbone, mixing
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

SIZES = {
    "S": {"depth": 12, "width": 384, "heads": 6},
    "B": {"depth": 12, "width": 768, "heads": 12},
    "L": {"depth": 24, "width": 1024, "heads": 16},
    "XL": {"depth": 28, "width": 1152, "heads": 16},
}
"""Table 1 of the paper."""


class DiT(Backbone):
    """The diffusion transformer with adaLN-zero (arXiv 2212.09748); attention layers are
    `blocks.0`, `blocks.1`, ...

    Classes and vectors are added to the time embedding. Sets of tokens enter by cross-attention in
    every block, which does not count as an attention layer.
    """

    name: ClassVar[str] = "dit"
    conditions: ClassVar[frozenset[str]] = frozenset({"class", "vector", "tokens"})

    size: Literal["S", "B", "L", "XL"] | None = Field(
        None,
        description=(
            "the paper's S (33M weights), B (130M), L (458M) or XL (675M), in place of the next "
            "three"
        ),
    )
    depth: int = Field(4, ge=1, le=1000, description="blocks")
    width: int = Field(64, ge=4, le=16384, description="channels of a token; 64 suits digits")
    heads: int = Field(4, ge=1, description="attention heads per block")
    patch: int = Field(2, ge=1, description="side of the square of pixels that makes a token")

    @model_validator(mode="before")
    @classmethod
    def _of_size(cls, fields: Any) -> Any:
        """Fill in what `size` stands for."""
        size = fields.get("size") if isinstance(fields, Mapping) else None
        if not isinstance(size, str) or size not in SIZES:
            return fields
        for name, value in SIZES[size].items():
            if fields.get(name, value) != value:
                raise ValueError(
                    f"size {size} has {name} {value}, not {fields[name]}: leave out `size` or "
                    f"`{name}`"
                )
        return {**fields, **SIZES[size]}

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        check_sizes(self.width, self.heads)
        return self

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"attention", "taps"})

    def identity(self) -> dict[str, Any]:
        """Without `size`, which only names a depth, a width and a number of heads."""
        return {key: value for key, value in super().identity().items() if key != "size"}

    def check(self, shape: tuple[int, int, int]) -> None:
        check_weights(self.name, 18 * self.depth * self.width**2)
        check_patches(self.name, self.patch, shape)

    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        self.check(shape)
        embed: ConditionEmbedding | TokenEmbedding | None = None
        if condition is not None:
            embedding = TokenEmbedding if condition.form == "tokens" else ConditionEmbedding
            embed = embedding(condition, self.width)
        return DiffusionTransformer(shape, self.patch, self.depth, self.width, self.heads, embed)


class DiffusionTransformer(nn.Module):
    """See `fw.core.kinds.Network`. Untrained, it predicts zero, and each block is the identity
    (adaLN-zero)."""

    positions: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        patch: int,
        depth: int,
        width: int,
        heads: int,
        embed: ConditionEmbedding | TokenEmbedding | None,
    ):
        super().__init__()
        colours, height, across = shape
        self.patch = patch
        self.rows = height // patch
        self.first = linear(patch * patch * colours, width)
        self.register_buffer(
            "positions", positions(self.rows, across // patch, width)
        )  # (N, width)
        self.level = LevelEmbedding(width)
        self.embed = embed
        self.crossed = isinstance(embed, TokenEmbedding)
        self.blocks = nn.ModuleList(Block(width, heads, self.crossed) for _ in range(depth))
        self.last = FinalLayer(width, patch * patch * colours)

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        condition: Tensor | None = None,
        dropped: Tensor | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        """x (B, C, H, W), noise (B,) -> (B, C, H, W)"""
        conditioning, context = self.conditioning(
            noise, condition, dropped
        )  # (B, width), (B, n, width)
        tokens = self.first(patchify(x, self.patch)) + self.positions  # (B, N, width)
        for index, block in enumerate(self.blocks):
            layer = f"blocks.{index}"
            tokens = block(tokens, conditioning, mixing(attend, layer), layer, context)
        return unpatchify(self.last(tokens, conditioning), self.patch, self.rows)

    def taps(self) -> dict[str, nn.Module]:
        """`blocks.0`, `blocks.1`, ...: tokens (B, N, width) after each block."""
        return {f"blocks.{index}": block for index, block in enumerate(self.blocks)}

    @property
    def repeated(self) -> Sequence[nn.Module]:
        """See `fw.core.kinds.Repeated`."""
        return list(self.blocks)

    def conditioning(
        self, noise: Tensor, condition: Tensor | None, dropped: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """noise (B,) -> the vectors (B, width) that condition all layers, and the condition's
        tokens (B, n, width) if it has any."""
        level, context = self.level(noise), None
        if self.embed is not None:
            embedded = self.embed(condition, dropped, len(noise))
            level, context = (level, embedded) if self.crossed else (level + embedded, None)
        elif condition is not None:
            raise ValueError("this dit was built without conditions, so it cannot take one")
        return silu(level), context
