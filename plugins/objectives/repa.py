"""Representation alignment (REPA, arXiv 2410.06940, eq. 8): a block learns an encoder's features of
the image."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from fw.core.kinds import Encoder, Objective, Seen


class REPA(Objective):
    """Aligns a block with the features of an encoder: minus the cosine between them, after a small
    MLP (REPA).

    `weight` is the paper's lambda. The encoder gets the clean image, the block the noisy one; the
    encoder does not learn. The paper aligns each token with the patch in its place. fw's encoders
    give one vector per image, so the mean of the tokens is aligned with that (or each token,
    without `pool`). With `train.flip` a mirror image is aligned with the features of the image
    itself. As in the paper, block 8 of 28 is read, or 4 of 12. On a GPU take `hidden: 2048`.
    """

    name: ClassVar[str] = "repa"
    depth: ClassVar[float] = 8 / 28

    encoder: Encoder = Field(
        description="encoder whose features are aligned with", examples=["pixels"]
    )
    hidden: int = Field(256, ge=1, le=65536, description="hidden dimension of the MLP")
    pool: bool = Field(True, description="average tokens before the MLP; false aligns each token")
    shuffled: bool = Field(
        False, description="the control: align each image with another one's features"
    )

    @property
    def per_image(self) -> bool:
        return not self.shuffled

    @property
    def target(self) -> Encoder:
        return self.encoder

    def build(self, width: int, features: int) -> nn.Module:
        layers = (
            nn.Linear(width, self.hidden),
            nn.Linear(self.hidden, self.hidden),
            nn.Linear(self.hidden, features),
        )
        return nn.Sequential(layers[0], nn.SiLU(), layers[1], nn.SiLU(), layers[2])

    def term(self, head: nn.Module, seen: Seen) -> Tensor:
        assert seen.features is not None
        features = seen.features
        if self.shuffled:
            order = torch.randperm(len(features), generator=seen.generator, device=features.device)
            features = features[order]
        tokens = (
            seen.tokens.mean(dim=1, keepdim=True) if self.pool else seen.tokens
        )  # (B, 1 or N, D)
        similarity = cosine_similarity(head(tokens), features[:, None], dim=2)  # (B, 1 or N)
        return -seen.mean(similarity.mean(dim=1))
