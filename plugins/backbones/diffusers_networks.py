"""diffusers' networks as `fw.core.kinds.Network`: their classes, blocks and layers of attention.

U-Nets add a class to the time embedding. In DiTTransformer2DModel every block has its own table of
classes and drops labels by itself in training, so that it hardly ever happens that all blocks are
without a class. That is off here, because fw drops conditions itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fw.core.diffusion.conditioning import INITIAL_STD
from fw.core.kinds import Attend, InDiffusers
from fw.plugins.backbones.in_diffusers import (
    PROMPTED,
    WITHOUT,
    copied,
    prompted_with_classes,
    with_classes,
)
from fw.plugins.backbones.unet import opened, self_attention


class PretrainedNetwork(nn.Module):
    """What all of diffusers' networks share. `classes` is the number of classes, which is also the
    number of the null; None for a network without conditions.

    The prediction has as many channels as the images. Those that a learned variance adds are left
    out.
    """

    def __init__(self, network: Any, classes: int | None):
        super().__init__()
        self.network = network
        self.classes = classes
        self.mixing = opened(network, self.attention_layers())

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        condition: Tensor | None = None,
        dropped: Tensor | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        """x (B, C, H, W), timesteps noise (B,) -> (B, C, H, W)"""
        raw = self.mixing.during(
            attend, lambda: self.predicted(x, noise, self.labels(condition, dropped, x))
        )
        return raw[:, : x.shape[1]]

    def predicted(self, x: Tensor, noise: Tensor, labels: Tensor | None) -> Tensor:
        return self.network(x, noise, class_labels=labels, return_dict=False)[0]

    def attention_layers(self) -> dict[str, str]:
        """The paths of the layers of self-attention, by the names that `attend` gets."""
        return self_attention(self.network)

    def in_diffusers(self) -> InDiffusers:
        """See `fw.core.kinds.Portable`."""
        call = WITHOUT if self.classes is None else with_classes(self.classes)
        return InDiffusers(copied(self.network, **self.settings()), call)

    def settings(self) -> dict[str, Any]:
        """Those that are not the loaded network's, because it has other classes."""
        if self.classes is None:
            return {}
        return {"class_embed_type": None, "num_class_embeds": self.classes + 1}

    def taps(self) -> dict[str, nn.Module]:
        """See `fw.core.kinds.Tapped`."""
        raise NotImplementedError

    def labels(self, condition: Tensor | None, dropped: Tensor | None, x: Tensor) -> Tensor | None:
        """The class of each image, or the null, int64 (B,)."""
        if self.classes is None:
            if condition is not None:
                raise ValueError("this network was built without conditions, so it cannot take one")
            return None
        null = torch.full((len(x),), self.classes, device=x.device)
        if condition is None:
            return null
        return condition if dropped is None else torch.where(dropped, null, condition)


class PretrainedUNet(PretrainedNetwork):
    """UNet2DModel."""

    def taps(self) -> dict[str, nn.Module]:
        """`down.0`, ..., `mid`, `up.0`, ...: maps (B, C, h, w) after each level; `up.0` is the
        coarsest."""
        down = {f"down.{level}": block for level, block in enumerate(self.network.down_blocks)}
        up = {f"up.{level}": block for level, block in enumerate(self.network.up_blocks)}
        middle = {} if self.network.mid_block is None else {"mid": self.network.mid_block}
        return {**down, **middle, **up}


class PretrainedCrossUNet(PretrainedUNet):
    """UNet2DConditionModel without its text encoder: the prompt is one trained token, zero at
    first.

    Classes are added to the time embedding, as in UNet2DModel.
    """

    def __init__(self, network: Any, classes: int | None):
        super().__init__(network, classes)
        self.prompt = nn.Parameter(torch.zeros(1, 1, network.config.cross_attention_dim))

    def in_diffusers(self) -> InDiffusers:
        call = PROMPTED if self.classes is None else prompted_with_classes(self.classes)
        model = copied(self.network, **self.settings())
        return InDiffusers(model, call, {"prompt": self.prompt.detach().clone()})

    def predicted(self, x: Tensor, noise: Tensor, labels: Tensor | None) -> Tensor:
        prompt = self.prompt.expand(len(x), -1, -1)  # (B, 1, D)
        return self.network(x, noise, prompt, class_labels=labels, return_dict=False)[0]


class PretrainedDiT(PretrainedNetwork):
    """DiTTransformer2DModel."""

    def settings(self) -> dict[str, Any]:
        return {"num_embeds_ada_norm": self.classes}

    def attention_layers(self) -> dict[str, str]:
        return {
            f"blocks.{index}": f"transformer_blocks.{index}.attn1"
            for index in range(len(self.taps()))
        }

    def taps(self) -> dict[str, nn.Module]:
        """`blocks.0`, `blocks.1`, ...: tokens (B, N, width) after each block."""
        return {
            f"blocks.{index}": block for index, block in enumerate(self.network.transformer_blocks)
        }


WRAPPERS: dict[str, type[PretrainedNetwork]] = {
    "UNet2DModel": PretrainedUNet,
    "UNet2DConditionModel": PretrainedCrossUNet,
    "DiTTransformer2DModel": PretrainedDiT,
}
"""By the name of diffusers' class."""


def wrapped(network: Any, classes: int | None, kept: bool) -> nn.Module:
    """diffusers' network with `classes` classes, or without any for None.

    `kept` classes are the network's own. New ones start close to its null.
    """
    count = classes or 0
    for holder, name, own, null in tables(network):
        if own is None and classes is None:
            return WRAPPERS[type(network).__name__](network, None)
        rows = (
            own if kept and own is not None else null + INITIAL_STD * torch.randn(count, len(null))
        )
        setattr(
            holder,
            name,
            nn.Embedding.from_pretrained(torch.cat([rows[:count], null[None]]), freeze=False),
        )
    return WRAPPERS[type(network).__name__](network, count)


def tables(network: Any) -> Iterator[tuple[nn.Module, str, Tensor | None, Tensor]]:
    """Where the network looks classes up: a module, its attribute, its own classes (N, width), and
    its null (width,).

    A DiT has a null. For a U-Net with classes it is their mean, and for one without classes zero.
    """
    if type(network).__name__ == "DiTTransformer2DModel":
        for block in network.transformer_blocks:
            embedder = block.norm1.emb.class_embedder
            embedder.dropout_prob = 0.0
            *_, null = own = embedder.embedding_table.weight.detach()  # (N + 1, width)
            yield embedder, "embedding_table", own[:-1], null
    elif network.class_embedding is None:
        yield (
            network,
            "class_embedding",
            None,
            torch.zeros(network.time_embedding.linear_2.out_features),
        )
    else:
        own = network.class_embedding.weight.detach()  # (N, width)
        yield network, "class_embedding", own, own.mean(dim=0)
