"""Classifier-free guidance (arXiv 2207.12598, eq. 6)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from fw.core.kinds import Denoiser, Guidance


class CFG(Guidance):
    """Classifier-free guidance (arXiv 2207.12598): worse is the same network without its condition.

    `scale` is Imagen's w in uncond + w (cond - uncond); the paper's own w is scale - 1. One more
    evaluation.
    """

    name: ClassVar[str] = "cfg"

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"conditions", "null"})

    def worse(
        self, model: Denoiser, x: Tensor, sigma: float, condition: Tensor | None, good: Tensor
    ) -> Tensor:
        return model(x, sigma, None)
