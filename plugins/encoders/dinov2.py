"""DINOv2: self-supervised features of 142 million curated images (Oquab et al., arXiv
2304.07193), from local files."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from fw.plugins.encoders.pretrained import Pretrained


class DINOv2(Pretrained):
    """DINOv2, pretrained without labels (arXiv 2304.07193), from local files, which `fw fetch`
    brings; frozen.

    It was trained on 142 million images, chosen because they are close to ImageNet and other
    labelled sets. That is far more than the dataset at hand, which its training may even contain.
    Say so where a result counts as label-free. timm's models take 518x518 pixels, and transformers'
    folders 224x224; papers mostly report `resolution: 224`, which is 5 times cheaper.
    """

    name: ClassVar[str] = "dinov2"
    default: ClassVar[str] = "vit_small_patch14_dinov2.lvd142m"
    architectures: ClassVar[str] = r"vit_\w*dinov2"
    model_types: ClassVar[tuple[str, ...]] = ("dinov2", "dinov2_with_registers")

    embedding: Literal["cls", "patches", "both"] = Field(
        "cls", description="the class token, the mean of the patch tokens, or both side by side"
    )
