"""diffusers' UNet2DModel as a backbone: the U-Net of DDPM (arXiv 2006.11239)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from fw.core.conditioning import ConditionEmbedding
from fw.core.kinds import Attend, Backbone, scaled_dot_product
from fw.core.types import ConditionSpec


class UNet(Backbone):
    """The U-Net of DDPM (arXiv 2006.11239) by diffusers; conditions are added to the time embedding."""

    name: ClassVar[str] = "unet"

    channels: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (16, 32), min_length=1, description="channels per level; each level halves the image"
    )
    layers: int = Field(1, ge=1, description="residual blocks per level")
    attention: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (), description="levels with self-attention, 0 is full resolution; with any, the middle has it too"
    )
    head_dim: int = Field(8, ge=1, description="channels per attention head")
    groups: int = Field(8, ge=1, description="groups of the group norms")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout in the residual blocks")

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        levels = len(self.channels)
        for level in self.attention:
            if level >= levels:
                raise ValueError(f"attention at level {level}, but channels has levels 0 to {levels - 1}")
        for width in self.channels:
            if width % self.groups:
                raise ValueError(f"channels {width} is not a multiple of groups {self.groups}")
            if width == self.groups:
                raise ValueError(
                    f"channels {width} in {self.groups} groups is one channel per group: the group norm would then "
                    "erase the time and condition embeddings; take fewer groups"
                )
        for width in {self.channels[level] for level in (*self.attention, -1) if self.attention}:
            if width % self.head_dim:
                raise ValueError(f"channels {width} with attention is not a multiple of head_dim {self.head_dim}")
        return self

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"attention"}) if self.attention else frozenset()

    def check(self, shape: tuple[int, int, int]) -> None:
        _, height, width = shape
        smallest = 2 ** (len(self.channels) - 1)
        if height % smallest or width % smallest:
            raise ValueError(
                f"unet with {len(self.channels)} levels needs images whose sides are multiples of {smallest}, and "
                f"these are {height}x{width}: take fewer entries in `channels`, or another image size"
            )

    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        from diffusers.models.unets.unet_2d import UNet2DModel

        self.check(shape)
        colours = shape[0]
        attends = [level in self.attention for level in range(len(self.channels))]
        unet = UNet2DModel(
            in_channels=colours,
            out_channels=colours,
            block_out_channels=self.channels,
            layers_per_block=self.layers,
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
            add_attention=bool(self.attention),
            attention_head_dim=self.head_dim,
            norm_num_groups=self.groups,
            dropout=self.dropout,
            class_embed_type=None if condition is None else "identity",
        )
        embed = None if condition is None else ConditionEmbedding(condition, 4 * self.channels[0])
        return ConditionedUNet(unet, embed)


class ConditionedUNet(nn.Module):
    """A UNet2DModel as a `fw.core.kinds.Network`."""

    def __init__(self, unet: nn.Module, embed: ConditionEmbedding | None):
        super().__init__()
        self.unet = unet
        self.embed = embed
        self.attention_layers = [name for name, layer in unet.named_modules() if hasattr(layer, "set_processor")]

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        condition: Tensor | None = None,
        dropped: Tensor | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        """x (B, C, H, W), noise (B,) -> (B, C, H, W)"""
        if self.embed is None and condition is not None:
            raise ValueError("this unet was built without conditions, so it cannot take one")
        embedding = None if self.embed is None else self.embed(condition, dropped, len(x))  # (B, 4 * channels[0])
        layers = {name: self.unet.get_submodule(name) for name in self.attention_layers}
        with attending(layers, attend or scaled_dot_product):
            return self.unet(x, noise, class_labels=embedding, return_dict=False)[0]


@contextmanager
def attending(layers: Mapping[str, Any], attend: Attend) -> Iterator[None]:
    """Let `attend` mix the tokens of the layers; afterwards they have the processors that they had before."""
    before = {name: layer.processor for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            layer.processor = Attending(attend, name)
        yield
    finally:
        for name, layer in layers.items():
            layer.processor = before[name]


class Attending:
    """A diffusers attention processor for self-attention over pixels, with its mixing step left open."""

    def __init__(self, attend: Attend, layer: str):
        self.attend = attend
        self.layer = layer

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """hidden_states (B, C, H, W) -> (B, C, H, W). diffusers passes the rest by name; here it does nothing."""
        height, width = hidden_states.shape[2:]
        tokens = attn.group_norm(hidden_states.flatten(2)).transpose(1, 2)  # (B, H * W, C)
        query, key, value = (
            project(tokens).unflatten(2, (attn.heads, -1)).transpose(1, 2)  # (B, heads, H * W, C / heads)
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        mixed = self.attend(query, key, value, self.layer)  # (B, heads, H * W, C / heads)
        out_projection, dropout = attn.to_out
        out = dropout(out_projection(mixed.transpose(1, 2).flatten(2)))  # (B, H * W, C)
        out = out.transpose(1, 2).unflatten(2, (height, width))  # (B, C, H, W)
        return (out + hidden_states) / attn.rescale_output_factor
