"""The networks of `trunks` with the maps between their layers, from fine to coarse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fw.core.diffusion.pixels import to_unit
from fw.plugins.encoders.trunks import BACKBONES


class Pyramid(nn.Module):
    """A backbone and its maps; its features (B, D) are the means over positions of the coarsest."""

    def __init__(self, name: str, shape: tuple[int, int, int], width: int):
        super().__init__()
        backbone, _ = BACKBONES[name](shape, width)
        self.backbone: Any = without_end(backbone) if name == "conv" else backbone
        self.between = MAPS[name]
        self.eval()
        with torch.no_grad():
            self.widths = [
                each.shape[1] for each in self.maps(torch.zeros(1, *shape, dtype=torch.uint8))
            ]
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images)[-1].mean(dim=(2, 3))

    def maps(self, images: Tensor) -> list[Tensor]:
        """uint8 images (B, C, H, W) to maps (B, c, h, w)."""
        return self.between(self.backbone, to_unit(images))


def without_end(backbone: nn.Module) -> nn.Sequential:
    """The convolutions alone."""
    layers = list(backbone.children())
    return nn.Sequential(
        *layers[
            : next(i for i, each in enumerate(layers) if isinstance(each, nn.AdaptiveAvgPool2d))
        ]
    )


def convolution_maps(backbone: Any, x: Tensor) -> list[Tensor]:
    maps = []
    for layer in backbone:
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            maps.append(x)
    return maps


def resnet_maps(backbone: Any, x: Tensor) -> list[Tensor]:
    x = backbone.relu(backbone.bn1(backbone.conv1(x)))
    maps = []
    for stage in (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4):
        x = stage(x)
        maps.append(x)
    return maps


def transformer_maps(backbone: Any, x: Tensor) -> list[Tensor]:
    """The patches' tokens after each quarter of the blocks."""
    depth = len(backbone.blocks)
    quarters = [depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]
    return list(
        backbone.forward_intermediates(x, indices=quarters, norm=True, intermediates_only=True)
    )


MAPS: Mapping[str, Callable[[Any, Tensor], list[Tensor]]] = {
    "conv": convolution_maps,
    "resnet18": resnet_maps,
    "vit_tiny": transformer_maps,
}
