"""DDIM's family of samplers (arXiv 2010.02502, eq. 16) at geometrically spaced noise levels."""

import itertools
import math
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from fw.core.kinds import Denoise, Sampler
from fw.core.randomness import Draws
from fw.registry import hookimpl

FW_API = 2


class Example(Sampler):
    """DDIM (arXiv 2010.02502) at geometrically spaced noise levels: eta 0 is deterministic, eta
    1 is DDPM."""

    name: ClassVar[str] = "example"

    steps: int = Field(20, ge=1, le=10_000, description="noise levels before zero")
    eta: float = Field(0.0, ge=0, le=1, description="share of DDPM's fresh noise")

    @property
    def nfe(self) -> int:
        return self.steps

    def sample(self, denoise: Denoise, noise: Tensor, draws: Draws) -> Tensor:
        ratio = denoise.sigma_min / denoise.sigma_max
        levels = [denoise.sigma_max * ratio ** (step / self.steps) for step in range(self.steps)]
        x = levels[0] * noise  # (B, C, H, W)
        for sigma, target in itertools.pairwise([*levels, 0.0]):
            fresh = self.eta * target * math.sqrt(sigma**2 - target**2) / sigma
            x0 = denoise(x, sigma).clamp(-1, 1)
            x = x0 + (x - x0) * math.sqrt(target**2 - fresh**2) / sigma
            if fresh > 0:  # each image's own noise, so that it does not depend on its batch
                x = x + fresh * draws.normal(*x.shape[1:]).to(x)
        return x


@hookimpl
def fw_components() -> list[type[Sampler]]:
    return [Example]
