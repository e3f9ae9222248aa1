"""The networks that joint-embedding methods train at the images' own resolution, and the encoder
around them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from fw.core.diffusion.pixels import to_unit


class ImageEncoder(nn.Module):
    """A backbone with its feature dimension: uint8 images (B, C, H, W) to features (B, dims)."""

    def __init__(self, backbone: nn.Module, dims: int):
        super().__init__()
        self.backbone = backbone
        self.dims = dims

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(to_unit(images))


def conv(shape: tuple[int, int, int], width: int) -> tuple[nn.Module, int]:
    """Convolutions that halve the side down to about 4, then a normalised linear layer on a 2x2
    map."""
    channels, *sides = shape
    halvings = max(1, round(math.log2(max(sides) / 4)))
    layers: list[nn.Module] = []
    wider = width // 4
    for stride in [1, *[2] * halvings, 1]:
        layers += [
            nn.Conv2d(channels, wider, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(wider),
            nn.ReLU(),
        ]
        channels, wider = wider, min(2 * wider, width)
    layers += [
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * channels, width),
        nn.BatchNorm1d(width),
    ]
    return nn.Sequential(*layers), width


def resnet18(shape: tuple[int, int, int], width: int) -> tuple[nn.Module, int]:
    """ResNet-18 with a 3x3 stem and no pooling after it, as is usual for 32x32 images; 512
    features."""
    from torchvision.models import resnet18 as torchvision_resnet18

    network = torchvision_resnet18(weights=None)
    network.conv1 = nn.Conv2d(shape[0], 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    network.fc = nn.Identity()
    return network, 512


def vit_tiny(shape: tuple[int, int, int], width: int) -> tuple[nn.Module, int]:
    """ViT-Ti (12 blocks, 192 features) on 8x8 patches per image; the features are the class
    token's."""
    from timm.models.vision_transformer import VisionTransformer

    channels, height, _ = shape
    network = VisionTransformer(
        img_size=height,
        patch_size=height // 8,
        in_chans=channels,
        num_classes=0,
        embed_dim=192,
        num_heads=3,
    )
    return network, 192


BACKBONES: Mapping[str, Callable[[tuple[int, int, int], int], tuple[nn.Module, int]]] = {
    "conv": conv,
    "resnet18": resnet18,
    "vit_tiny": vit_tiny,
}
