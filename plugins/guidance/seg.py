"""Smoothed energy guidance (arXiv 2408.00760, proposition 3.1)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from fw.core.kinds import Denoiser, scaled_dot_product
from fw.plugins.guidance.attention import AttentionGuidance, token_grid
from fw.plugins.guidance.blur import NARROWEST, blurred


class SEG(AttentionGuidance):
    """Smoothed energy guidance (arXiv 2408.00760): worse is the network whose queries are blurred
    over the image.

    Blurring the queries blurs the logits of attention, Q K^T, over the queries' places. The paper
    keeps its gamma at 3 and tunes the blur. gamma is scale - 1, as in its code, s + gamma (s -
    s_blurred); in its equation, gamma s - (gamma - 1) s_blurred, gamma would be the scale. One more
    evaluation. `layers` as in every mode through attention: parts of layer names or two fractions
    of the depth; by default the layers with `mid` in their name, else those at 40 to 60 %.
    """

    name: ClassVar[str] = "seg"

    blur: float | None = Field(
        None, ge=0, description="sigma of the blur, in tokens; null is the mean of all queries"
    )

    @property
    def on_a_grid(self) -> bool:
        return self.blur is not None

    def idle(self) -> str | None:
        nothing = self.blur is not None and self.blur <= NARROWEST
        return super().idle() or (
            f"a blur of {self.blur:g} tokens reaches no other token" if nothing else None
        )

    def worse(
        self, model: Denoiser, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor
    ) -> Tensor:
        def smoothed(query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
            return scaled_dot_product(self._smooth(query, x, layer), key, value, layer)

        return self.changed(model, x, sigma, condition, smoothed)

    def _smooth(self, query: Tensor, x: Tensor, layer: str) -> Tensor:
        """Queries (B, heads, N, d) of images x, blurred over the grid of the N tokens."""
        if self.blur is None:
            return query.mean(dim=2, keepdim=True).expand_as(query)
        grid = token_grid(query.shape[2], x, layer)
        planes = (
            query.transpose(2, 3).flatten(1, 2).unflatten(2, grid)
        )  # (B, heads * d, rows, columns)
        smooth = blurred(planes, self.blur).flatten(2)  # (B, heads * d, N)
        return smooth.unflatten(1, (query.shape[1], -1)).transpose(2, 3)  # (B, heads, N, d)
