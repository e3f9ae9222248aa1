"""CLIP: image features from the supervision of captions (Radford et al., arXiv 2103.00020), from
local files."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from fw.plugins.encoders.pretrained import Pretrained


class CLIP(Pretrained):
    """CLIP's image tower, pretrained on images with captions (arXiv 2103.00020), from local files;
    frozen.

    It counts as label-free here, as in kNN-Diffusion, RDM and SGDM, because it never gets the
    dataset's labels. But it was trained on 400 million captions (other tags: up to billions), which
    name classes. That is far more than the dataset at hand, which its training may even contain.
    Say so where a result counts as label-free.

    The projected embedding is not normalised to length 1. OpenAI's weights belong to timm's
    `quickgelu` models. timm crops away a tenth of the image, as its settings for most CLIP models
    say; transformers' folders do not.
    """

    name: ClassVar[str] = "clip"
    default: ClassVar[str] = "vit_base_patch32_clip_quickgelu_224.openai"
    architectures: ClassVar[str] = r"vit_\w*clip"
    model_types: ClassVar[tuple[str, ...]] = ("clip", "clip_vision_model")

    embedding: Literal["projected", "pooled"] = Field(
        "projected", description="in the joint space of images and texts, or the image tower's own"
    )
