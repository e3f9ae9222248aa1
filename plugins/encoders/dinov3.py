"""DINOv3: self-supervised features of 1.7 billion images (Siméoni et al., arXiv 2508.10104),
from local files."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from fw.plugins.encoders.pretrained import Pretrained


class DINOv3(Pretrained):
    """DINOv3, pretrained without labels (arXiv 2508.10104), from local files, which `fw fetch`
    brings; frozen.

    It was trained on 1.7 billion images from the web (or, with the tag sat493m, 493 million from
    satellites). That is far more than the dataset at hand, which its training may even contain. Say
    so where a result counts as label-free. Its weights have a licence of their own. timm's models
    take 256x256 pixels, and transformers' folders 224x224.
    """

    name: ClassVar[str] = "dinov3"
    default: ClassVar[str] = "vit_small_patch16_dinov3.lvd1689m"
    architectures: ClassVar[str] = r"vit_\w*dinov3"
    model_types: ClassVar[tuple[str, ...]] = ("dinov3_vit",)

    embedding: Literal["cls", "patches", "both"] = Field(
        "cls", description="the class token, the mean of the patch tokens, or both side by side"
    )
