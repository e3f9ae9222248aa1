"""diffusers' U-Nets as a backbone: DDPM's (arXiv 2006.11239), and for tokens latent diffusion's.

Token conditions enter by cross-attention (arXiv 2112.10752, section 3.3), in UNet2DConditionModel.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from fw.core.diffusion.conditioning import ConditionEmbedding, TokenEmbedding
from fw.core.kinds import Attend, Backbone, InDiffusers
from fw.core.kinds.size import check_weights
from fw.core.types import ConditionSpec
from fw.plugins.backbones.in_diffusers import (
    WITH_TOKENS,
    WITH_VECTORS,
    WITHOUT,
    copied,
    with_classes,
)
from fw.plugins.backbones.levels import check_attention, check_halving
from fw.registry import Neutral

IN_TRANSFORMER = ".transformer_blocks.0.attn1"
"""The path from an attention layer's place to its self-attention, if it has cross-attention too."""
LAST = re.compile(r"(\.conv2|\.attentions\.\d+\.(to_out\.0|proj_out)|^conv_out)$")
"""The paths of the layers with which a residual block, an attention layer and the network end."""


class UNet(Backbone):
    """The U-Net of DDPM (arXiv 2006.11239) by diffusers; conditions are added to the time
    embedding.

    Sets of tokens enter by cross-attention instead, at the levels with attention and in the middle.
    These have transformer blocks then (arXiv 2112.10752), whose self-attention counts as an
    attention layer.

    DDPM's network for CIFAR-10 (35.7M weights) is channels [128, 256, 256, 256], layers 2,
    attention [1], heads 1, groups 32, dropout 0.1 and init ddpm. Its released code differs in three
    details of diffusers: group norms add 1e-6 to the variance, here 1e-5; steps down pad one side
    alone; and the frequencies of the timestep are spaced a little wider.
    """

    name: ClassVar[str] = "unet"
    conditions: ClassVar[frozenset[str]] = frozenset({"class", "vector", "tokens"})

    channels: tuple[Annotated[int, Field(ge=1, le=16384)], ...] = Field(
        (16, 32),
        min_length=1,
        description="channels per level; each level halves the image; [16, 32] suits digits",
    )
    layers: int = Field(1, ge=1, le=1000, description="residual blocks per level")
    attention: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (),
        description=(
            "levels with self-attention, 0 is full resolution; with any, the middle has it too"
        ),
    )
    head_dim: int = Field(
        8, ge=1, description="channels per attention head; 8 suits narrow networks, else see heads"
    )
    heads: Annotated[int | None, Neutral(None)] = Field(
        None, ge=1, description="attention heads per layer, in place of head_dim; DDPM has 1"
    )
    groups: int = Field(8, ge=1, description="groups of the group norms")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout in the residual blocks")
    init: Annotated[Literal["torch", "zero", "ddpm"], Neutral("torch")] = Field(
        "torch",
        description=(
            "how weights start: as torch's layers do; so, but at zero where a residual block, an "
            "attention layer and the network end; or as DDPM's: there zero, and else by Glorot's "
            "rule"
        ),
    )

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        check_attention(self.attention, len(self.channels), "channels")
        for width in self.channels:
            if width % self.groups:
                raise ValueError(f"channels {width} is not a multiple of groups {self.groups}")
            if width == self.groups:
                raise ValueError(
                    f"channels {width} in {self.groups} groups is one channel per group: the group "
                    "norm would then erase the time and condition embeddings; take fewer groups"
                )
        for width in {self.channels[level] for level in (*self.attention, -1) if self.attention}:
            if self.heads is not None and width % self.heads:
                raise ValueError(
                    f"channels {width} with attention is not a multiple of heads {self.heads}"
                )
            if self.heads is None and width % self.head_dim:
                raise ValueError(
                    f"channels {width} with attention is not a multiple of head_dim {self.head_dim}"
                )
        return self

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"attention", "taps"}) if self.attention else frozenset({"taps"})

    def check(self, shape: tuple[int, int, int]) -> None:
        check_weights(self.name, sum(width**2 * (45 * self.layers + 27) for width in self.channels))
        check_halving(self.name, len(self.channels), "channels", shape)

    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        from diffusers.models.unets.unet_2d import UNet2DModel
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        self.check(shape)
        width = 4 * self.channels[0]
        crossed = condition is not None and condition.form == "tokens"
        if crossed:
            unet = UNet2DConditionModel(
                **self._blocks(shape[0], "CrossAttn"),
                attention_head_dim=tuple(
                    map(self._heads, self.channels)
                ),  # diffusers' name for the number of heads
                cross_attention_dim=width,
            )
        else:
            unet = UNet2DModel(
                **self._blocks(shape[0], "Attn"),
                add_attention=bool(self.attention),
                attention_head_dim=self.head_dim if self.heads is None else None,  # None: one head
                class_embed_type=None if condition is None else "identity",
            )
            for path in self_attention(unet).values() if self.heads is not None else ():
                unet.get_submodule(path).heads = self.heads
        if self.init != "torch":
            start(unet, glorot=self.init == "ddpm")
        if condition is None:
            return ConditionedUNet(unet, None)
        embedding = TokenEmbedding if crossed else ConditionEmbedding
        return ConditionedUNet(unet, embedding(condition, width))

    def _blocks(self, colours: int, attending: str) -> dict[str, Any]:
        """Settings of both U-Nets; the type of a block with attention begins with `attending`."""
        prefixes = [
            attending if level in self.attention else "" for level in range(len(self.channels))
        ]
        return {
            "in_channels": colours,
            "out_channels": colours,
            "block_out_channels": self.channels,
            "layers_per_block": self.layers,
            "down_block_types": tuple(f"{prefix}DownBlock2D" for prefix in prefixes),
            "up_block_types": tuple(f"{prefix}UpBlock2D" for prefix in reversed(prefixes)),
            "norm_num_groups": self.groups,
            "dropout": self.dropout,
        }

    def _heads(self, channels: int) -> int:
        """How many heads: as many as the fields say, or fewer where these do not fit.

        They may not fit in the middle, if it has attention only because conditions are tokens.
        """
        most = self.heads or max(1, channels // self.head_dim)
        return next(heads for heads in range(most, 0, -1) if channels % heads == 0)


class ConditionedUNet(nn.Module):
    """A UNet2DModel, or for tokens a UNet2DConditionModel, as a `fw.core.kinds.Network`."""

    def __init__(self, unet: nn.Module, embed: ConditionEmbedding | TokenEmbedding | None):
        super().__init__()
        self.unet = unet
        self.embed = embed
        self.crossed = isinstance(embed, TokenEmbedding)
        self.attention_layers = self_attention(unet)
        self.mixing = opened(unet, self.attention_layers)

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
        embedded = (
            None if self.embed is None else self.embed(condition, dropped, len(x))
        )  # (B, width) or (B, n, width)
        inputs = {"encoder_hidden_states" if self.crossed else "class_labels": embedded}
        return self.mixing.during(
            attend, lambda: self.unet(x, noise, **inputs, return_dict=False)[0]
        )

    def in_diffusers(self) -> InDiffusers:
        """See `fw.core.kinds.Portable`. Classes become the model's own, with the null as the last;
        vectors and tokens are embedded before they enter it."""
        if not isinstance(self.embed, ConditionEmbedding | TokenEmbedding):
            return InDiffusers(copied(self.unet, **self._heads()), WITHOUT)
        tensors = {name: each.detach().clone() for name, each in self.embed.state_dict().items()}
        if self.crossed:
            tensors["count"] = torch.tensor(self.embed.count)
            return InDiffusers(copied(self.unet), WITH_TOKENS, tensors)
        if "embed.bias" in tensors:
            return InDiffusers(copied(self.unet, **self._heads()), WITH_VECTORS, tensors)
        table = torch.cat([tensors["embed.weight"], tensors["null"][None]])
        count = len(table)
        model = copied(
            self.unet,
            {"class_embedding.weight": table},
            class_embed_type=None,
            num_class_embeds=count,
            **self._heads(),
        )
        return InDiffusers(model, with_classes(count - 1))

    def _heads(self) -> dict[str, Any]:
        """The setting of UNet2DModel that gives its layers as many heads as they have here."""
        layers: list[Any] = [
            self.unet.get_submodule(each) for each in self.attention_layers.values()
        ]
        widths = {layer.to_q.out_features // layer.heads for layer in layers}
        if not layers or all(layer.heads == 1 for layer in layers):
            return {}
        if len(widths) > 1:
            raise ValueError(
                "its attention layers have heads of several widths, and UNet2DModel has one for all"
            )
        return {"attention_head_dim": widths.pop()}

    def taps(self) -> dict[str, nn.Module]:
        """`down.0`, ..., `mid`, `up.0`, ...: maps (B, C, h, w) after each level; `up.0` is the
        coarsest."""
        down = {
            f"down.{level}": block
            for level, block in self.unet.get_submodule("down_blocks").named_children()
        }
        up = {
            f"up.{level}": block
            for level, block in self.unet.get_submodule("up_blocks").named_children()
        }
        return {**down, "mid": self.unet.get_submodule("mid_block"), **up}


def start(unet: nn.Module, glorot: bool) -> None:
    """Zero the last layers; `glorot` draws all others as DDPM's released code, without biases."""
    for path, layer in unet.named_modules():
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            continue
        last = LAST.search(path) is not None
        if last:
            nn.init.zeros_(layer.weight)
        elif glorot:
            nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None and (last or glorot):
            nn.init.zeros_(layer.bias)


def self_attention(unet: nn.Module) -> dict[str, str]:
    """The layers of self-attention by the names that `attend` gets: their paths in the network.

    The names are the same with and without tokens. Cross-attention is not among them: guidance
    perturbs self-attention alone.
    """
    paths = [path for path, layer in unet.named_modules() if hasattr(layer, "set_processor")]
    return {
        path.removesuffix(IN_TRANSFORMER): path for path in paths if not path.endswith(".attn2")
    }


class Mixing:
    """The `attend` of the call that a network is in; None outside of calls, and in usual ones.

    diffusers' U-Nets pass nothing on to their layers of attention. So the layers look here, from
    the day they are built: a network whose layers never change can be compiled.
    """

    attend: Attend | None = None

    def during(self, attend: Attend | None, call: Callable[[], Tensor]) -> Tensor:
        """What `call` returns while `attend` mixes the tokens."""
        self.attend = attend
        try:
            return call()
        finally:
            self.attend = None


def opened(network: nn.Module, paths: Mapping[str, str]) -> Mixing:
    """Leave the mixing step open in the layers at these paths, by the names that `attend` gets."""
    mixing = Mixing()
    for name, path in paths.items():
        layer: Any = network.get_submodule(path)
        layer.set_processor(Attending(mixing, name, layer.processor))
    return mixing


class Attending:
    """A diffusers attention processor for self-attention, with its mixing step left open: `usual`
    is the one that the layer had, which goes on mixing where there is no `attend`."""

    def __init__(self, mixing: Mixing, layer: str, usual: Any):
        self.mixing = mixing
        self.layer = layer
        self.usual = usual

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Pixels (B, C, H, W), which are normed and added here, or tokens (B, N, C) of a
        transformer block, which norms and adds by itself -> the same shape.

        diffusers passes the other arguments by name; with an `attend` they are not used.
        """
        attend = self.mixing.attend
        if attend is None:
            named = {} if temb is None else {"temb": temb}
            return self.usual(attn, hidden_states, encoder_hidden_states, attention_mask, **named)
        if hidden_states.dim() == 3:
            return self.mixed(attn, hidden_states, attend)
        height, width = hidden_states.shape[2:]
        tokens = attn.group_norm(hidden_states.flatten(2)).transpose(1, 2)  # (B, H * W, C)
        out = self.mixed(attn, tokens, attend).transpose(1, 2)
        out = out.unflatten(2, (height, width))  # (B, C, H, W)
        return (out + hidden_states) / attn.rescale_output_factor

    def mixed(self, attn: Any, tokens: Tensor, attend: Attend) -> Tensor:
        """(B, N, C) -> (B, N, C)"""
        query, key, value = (
            project(tokens)
            .unflatten(2, (attn.heads, -1))
            .transpose(1, 2)  # (B, heads, N, C / heads)
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        mixed = attend(query, key, value, self.layer)  # (B, heads, N, C / heads)
        out_projection, dropout = attn.to_out
        return dropout(out_projection(mixed.transpose(1, 2).flatten(2)))
