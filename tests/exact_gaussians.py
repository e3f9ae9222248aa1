"""A mixture of Gaussians as a denoiser that knows everything: E[x0 | x], E[x0 | x, c] and log
p(c | x) are exact."""

from __future__ import annotations

import torch
from torch import Tensor

from fw.core.diffusion.pixels import per_image
from fw.core.kinds import Attend, Move

STD = 0.2
SHARES = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
DRAW = torch.Generator().manual_seed(0)
MEANS = torch.randn(3, 1, 4, 4, generator=DRAW, dtype=torch.float64) / 2
"""Of each class, (K, C, H, W)."""


class Gaussians:
    """Classes N(MEANS[c], STD^2) with probabilities SHARES; counts how often it is asked.

    A joint model's generator is not `told` the condition.
    """

    sigma_min, sigma_max = 0.002, 80.0

    def __init__(self, told: bool = True):
        self.told = told
        self.asked = 0

    def __call__(
        self, x: Tensor, sigma: float, condition: Tensor | None = None, attend: Attend | None = None
    ) -> Tensor:
        self.asked += 1
        return self.known(x, sigma, condition if self.told else None)

    def known(self, x: Tensor, sigma: float, condition: Tensor | None) -> Tensor:
        """E[x0 | x, c], (B, C, H, W); without c, that of the mixture."""
        if condition is None:
            centre = (self.scores(x, sigma).softmax(dim=1) @ MEANS.to(x).flatten(1)).view_as(x)
        else:
            centre = MEANS.to(x)[condition]
        return (STD**2 * x + sigma**2 * centre) / (STD**2 + sigma**2)

    def layers(self, x: Tensor) -> tuple[str, ...]:
        return ()

    def logits(self, x: Tensor, sigma: float) -> Tensor:
        self.asked += 1
        return self.scores(x, sigma) + 7  # a constant means nothing

    def steered(self, x: Tensor, sigma: float, move: Move) -> Tensor:
        raise NotImplementedError

    def scores(self, x: Tensor, sigma: float) -> Tensor:
        """log p(c, x), up to a constant: (B, K)."""
        gaps = (x[:, None] - MEANS.to(x)).square().sum(dim=(2, 3, 4))  # (B, K)
        return SHARES.to(x).log() - gaps / (2 * (STD**2 + sigma**2))


def noisy(sigma: float, count: int = 9, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Noisy images (B, 1, 4, 4) in float64, and a class to ask for for each, its own or another."""
    draw = torch.Generator().manual_seed(seed)
    own, asked = torch.arange(count) % 3, torch.arange(count) // 3 % 3
    noise = torch.randn(2, count, 1, 4, 4, generator=draw, dtype=torch.float64)
    return MEANS[own] + STD * noise[0] + per_image(torch.full((count,), sigma)) * noise[1], asked
