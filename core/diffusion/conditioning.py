"""Conditions inside a network: an embedding for every form of condition, with a learned null."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fw.core.types import ConditionSpec

INITIAL_STD = 0.02


class ConditionEmbedding(nn.Module):
    """Conditions to vectors (B, width): classes by a table, vectors by a linear map. Tokens have
    `TokenEmbedding`.

    The null condition is a learned vector. It is used for `condition=None` and where `dropped`
    (bool, (B,)) is set. Tables start small, as in DiT (arXiv 2212.09748): at torch's unit variance,
    labels that mean nothing yet slow training down.
    """

    def __init__(self, spec: ConditionSpec, width: int):
        super().__init__()
        self.embed = (
            nn.Embedding(spec.size, width) if spec.form == "class" else nn.Linear(spec.size, width)
        )
        self.null = nn.Parameter(torch.randn(width) * INITIAL_STD)
        if spec.form == "class":
            nn.init.normal_(self.embed.weight, std=INITIAL_STD)

    def forward(self, condition: Tensor | None, dropped: Tensor | None, batch: int) -> Tensor:
        null = self.null.expand(batch, -1)  # (B, width)
        if condition is None:
            return null
        embedded = self.embed(condition)  # (B, width)
        return embedded if dropped is None else torch.where(dropped[:, None], null, embedded)


class TokenEmbedding(nn.Module):
    """Sets of tokens (B, n, D) to sets of vectors (B, n, width), for cross-attention.

    The tokens of a set are not numbered: each is mapped alone, and their order means nothing. The
    null condition is one learned token in every place of the set. It is used for `condition=None`
    and, for the whole set at once, where `dropped` (bool, (B,)) is set. RDM (arXiv 2204.11824) has
    zeros instead, which its training never meets. The norm at the end gives all tokens the same
    length, the null too.
    """

    def __init__(self, spec: ConditionSpec, width: int):
        super().__init__()
        self.count = spec.count
        self.embed = nn.Linear(spec.size, width)
        self.null = nn.Parameter(torch.randn(width) * INITIAL_STD)
        self.norm = nn.LayerNorm(width)

    def forward(self, condition: Tensor | None, dropped: Tensor | None, batch: int) -> Tensor:
        null = self.null.expand(batch, self.count, -1)  # (B, n, width)
        if condition is None:
            return self.norm(null)
        embedded = self.embed(condition)  # (B, n, width)
        return self.norm(
            embedded if dropped is None else torch.where(dropped[:, None, None], null, embedded)
        )
