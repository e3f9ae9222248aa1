"""The published DINO: self-distilled vision transformers (Caron et al., arXiv 2104.14294), from
local files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from fw.core.errors import MissingFile
from fw.plugins.encoders.checkpoint import Checkpoint
from fw.plugins.encoders.pretrained import Pretrained


class DINOv1(Pretrained):
    """The published DINO, pretrained on ImageNet without its labels (arXiv 2104.14294), from local
    files; frozen.

    The encoder `dino` is the same method, trained on the dataset at hand. timm's weights are taken,
    as a file or a folder. A folder of transformers does not say whether its ViT is DINO's or was
    trained with labels, and is refused.
    """

    name: ClassVar[str] = "dinov1"
    default: ClassVar[str] = "vit_small_patch16_224.dino"
    architectures: ClassVar[str] = r"vit_(small|base)_patch(8|16)_224\.dino$"
    model_types: ClassVar[tuple[str, ...]] = ()

    embedding: Literal["cls", "patches", "both"] = Field(
        "cls", description="the class token, the mean of the patch tokens, or both side by side"
    )

    def from_transformers(self, folder: Path, config: dict[str, Any]) -> Checkpoint:
        raise MissingFile(
            f"encoder dinov1: {folder} is a folder of transformers, which does not say whether its "
            "ViT saw labels: take timm's folder of the same weights"
        )
