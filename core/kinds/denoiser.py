"""D(x; sigma, c), the one convention that guidance and samplers know (EDM, arXiv 2206.00364)."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from fw.core.kinds.joint import Move
from fw.core.kinds.network import Attend


class Denoiser(Protocol):
    """D(x; sigma, c), the one convention that guidance and samplers know."""

    def __call__(
        self, x: Tensor, sigma: float, condition: Tensor | None = None, attend: Attend | None = None
    ) -> Tensor: ...

    def layers(self, x: Tensor) -> tuple[str, ...]:
        """The names of the network's layers that mix tokens through `attend`, in the order in
        which they are called."""

    def logits(self, x: Tensor, sigma: float) -> Tensor:
        """The class logits (B, K) of noisy images, for guidance that requires `logits`.

        For a gradient with respect to x, leave inference mode: `torch.inference_mode(False)`,
        `torch.enable_grad()`.
        """

    def steered(self, x: Tensor, sigma: float, move: Move) -> Tensor:
        """D(x; sigma) decoded from moved features (`Steerable`), for guidance that requires
        `steerable`."""
        ...


class Denoise(Protocol):
    """What a sampler calls: the guided denoiser, with the conditions of its batch bound."""

    sigma_min: float
    sigma_max: float

    def __call__(self, x: Tensor, sigma: float) -> Tensor: ...
