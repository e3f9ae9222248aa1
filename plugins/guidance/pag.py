"""Perturbed-attention guidance (arXiv 2403.17377), and its soft form (arXiv 2506.10978)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fw.core.kinds import Denoiser, scaled_dot_product
from fw.plugins.guidance.attention import AttentionGuidance


class PAG(AttentionGuidance):
    """Perturbed-attention guidance (arXiv 2403.17377): worse is the network whose tokens see only
    themselves.

    In the chosen layers the attention map A becomes (1 - soft) A + soft I. The paper's s, in eps +
    s (eps - eps_worse), is scale - 1; the `guide_scale` of its ImageNet code is fw's scale. One
    more evaluation. `layers` as in every mode through attention: parts of layer names or two
    fractions of the depth; by default the layers with `mid` in their name, else those at 40 to 60
    %.
    """

    name: ClassVar[str] = "pag"

    soft: float = Field(
        1.0, ge=0, le=1, description="how far attention goes towards the identity; 1 is the paper's"
    )

    def idle(self) -> str | None:
        return super().idle() or ("soft 0 leaves attention as it is" if self.soft == 0 else None)

    def worse(
        self, model: Denoiser, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor
    ) -> Tensor:
        def towards_identity(query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
            if self.soft == 1:
                return value
            mixed = scaled_dot_product(query, key, value, layer)  # A V
            return torch.lerp(mixed, value.to(mixed.dtype), self.soft)  # ((1 - soft) A + soft I) V

        return self.changed(model, x, sigma, condition, towards_identity)
