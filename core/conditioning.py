"""Conditions inside a network: an embedding for every form of condition, with a learned null."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fw.core.types import ConditionSpec

INITIAL_STD = 0.02


class ConditionEmbedding(nn.Module):
    """Conditions to vectors (B, width); classes by table, vectors by a linear map.

    The null condition is a learned vector, used for `condition=None` and where `dropped` (bool, (B,)) is set. Tables
    start small, as in DiT (arXiv 2212.09748): at torch's unit variance, labels that mean nothing slow training down.
    """

    def __init__(self, spec: ConditionSpec, width: int):
        super().__init__()
        self.embed = nn.Embedding(spec.size, width) if spec.form == "class" else nn.Linear(spec.size, width)
        self.null = nn.Parameter(torch.randn(width) * INITIAL_STD)
        if spec.form == "class":
            nn.init.normal_(self.embed.weight, std=INITIAL_STD)

    def forward(self, condition: Tensor | None, dropped: Tensor | None, batch: int) -> Tensor:
        null = self.null.expand(batch, -1)  # (B, width)
        if condition is None:
            return null
        embedded = self.embed(condition)  # (B, width)
        return embedded if dropped is None else torch.where(dropped[:, None], null, embedded)
