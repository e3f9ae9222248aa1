"""From noise to images, with any denoiser."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from fw.core.kinds.denoiser import Denoise
from fw.core.randomness import Draws, forked
from fw.registry import Component


class Recorder:
    """A `Denoise` that predicts a grey image, and records the noise levels at which it is
    called."""

    def __init__(self, sigma_min: float, sigma_max: float):
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.levels: list[float] = []

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.levels.append(float(sigma))
        return torch.zeros_like(x)


class Sampler(Component):
    """Integrates from noise to images with any denoiser. Its schedule is its fields."""

    kind: ClassVar[str] = "sampler"

    @property
    @abstractmethod
    def nfe(self) -> int:
        """Denoiser evaluations per sample, without guidance."""

    def check(self, sigma_range: tuple[float, float]) -> None:
        """Raise ValueError if the schedule leaves the trained noise levels; called when a recipe
        is validated."""

    def asks(self, sigma_range: tuple[float, float]) -> list[float]:
        """The noise level of each of its calls of a denoiser that was trained in this range: it
        samples a small grey image to see."""
        recorder = Recorder(*sigma_range)
        with forked(), torch.inference_mode():
            self.sample(recorder, torch.zeros(1, 1, 8, 8), Draws("asks", rows=range(1)))
        return recorder.levels

    @abstractmethod
    def sample(self, denoise: Denoise, noise: Tensor, draws: Draws) -> Tensor:
        """Unit-variance noise (B, C, H, W) to samples in -1..1.

        A stochastic sampler takes fresh noise from `draws.normal(*noise.shape[1:])`, so samples do
        not depend on the batch. A library that draws by itself gets `draws[i]`, a CPU generator of
        image i's own.
        """
