"""Runs diffusers' variance-preserving schedulers with a denoiser: x_vp = x / sqrt(1 + sigma^2)."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from fw.core.kinds import Denoise, Recorder
from fw.core.randomness import Draws
from fw.plugins.samplers.noise_levels import NoiseLevels


class DiffusersScheduler(NoiseLevels):
    """A sampler whose steps a diffusers scheduler takes.

    The scheduler gets one timestep per noise level, and the denoiser's output as its predicted
    "sample".
    """

    @abstractmethod
    def scheduler(self, **options: Any) -> Any:
        """A fresh scheduler, since schedulers keep state, with `options` and its own."""

    def step_options(self, x: Tensor, draws: Draws, sigma: float, target: float) -> dict[str, Any]:
        """More arguments of the next `scheduler.step` of the images x (B, C, H, W), which goes from
        level sigma to level target."""
        return {}

    def asks(self, sigma_range: tuple[float, float]) -> list[float]:
        return self.levels(Recorder(*sigma_range))

    def sample(self, denoise: Denoise, noise: Tensor, draws: Draws) -> Tensor:
        sigmas = self.levels(denoise)
        scheduler = self._set_up(sigmas)
        x = noise * (sigmas[0] / math.hypot(1, sigmas[0]))  # x is x_vp
        steps = zip(sigmas, [*sigmas[1:], 0.0], scheduler.timesteps.tolist(), strict=True)
        for sigma, target, timestep in steps:
            x0 = self.denoised(denoise, x * math.hypot(1, sigma), sigma)
            options = self.step_options(x, draws, sigma, target)
            x = scheduler.step(x0, timestep, x, **options).prev_sample
        return x

    def _set_up(self, sigmas: list[float]) -> Any:
        """A scheduler whose training timesteps are the noise levels, and which ends at sigma = 0.

        Schedulers compute abar from float32 betas, too coarse for steps this long (beta may be 1 -
        1e-7), so it is replaced by its float64 value. Its elements are scalars to torch: images
        stay float32.
        """
        abar = 1 / (1 + torch.tensor(sigmas[::-1], dtype=torch.float64).square())
        betas = 1 - abar / torch.cat([abar.new_ones(1), abar[:-1]])
        scheduler = self.scheduler(
            num_train_timesteps=len(sigmas),
            trained_betas=betas.tolist(),
            prediction_type="sample",
            timestep_spacing="trailing",
        )
        scheduler.alphas_cumprod = abar
        scheduler.set_timesteps(len(sigmas))
        return scheduler
