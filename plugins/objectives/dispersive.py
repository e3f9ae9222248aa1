"""Dispersive loss (arXiv 2506.09027, algorithm 1): the images of a batch repel each other in a
block's features."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fw.core.kinds import Objective, Seen


class Dispersive(Objective):
    """Spreads the images of a batch in a block's features: log mean exp(-|z_i - z_j|^2 / (D tau)),
    without positives.

    The mean is over all pairs, an image with itself included. So the term is 0 where all images are
    alike, and falls as they spread, at most to -log(batch), where nothing is left to learn. z are
    all D activations of the block. There is no head, and no other image than the step's, so the
    term depends on `train.batch`. The first quarter of the blocks, weight and tau are the paper's
    (its release in JAX).
    """

    name: ClassVar[str] = "dispersive"
    depth: ClassVar[float] = 0.25

    temperature: float = Field(0.5, ge=1e-3, description="tau")

    def term(self, head: nn.Module, seen: Seen) -> Tensor:
        activations = seen.tokens.flatten(1)  # (B, N * D)
        distances = squared_distances(activations) / activations.shape[1]  # (B, B)
        pairs = (seen.taken[:, None] & seen.taken).to(activations.dtype)  # (B, B)
        mean = ((-distances / self.temperature).exp() * pairs).sum() / pairs.sum().clamp(min=1)
        return torch.where(seen.taken.any(), mean, 1.0).log()


def squared_distances(points: Tensor) -> Tensor:
    """|z_i - z_j|^2 (B, B) of points (B, D), without a square root, whose slope at 0 is
    infinite."""
    centred = (
        points - points.mean(dim=0).detach()
    )  # as far from each other, and shorter: less is lost by rounding
    squares = centred.square().sum(dim=1)
    return (squares[:, None] + squares - 2 * centred @ centred.T).clamp(min=0)
