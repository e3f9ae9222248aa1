"""The contract of a sampler, and what this one does."""

import pytest
from torch import Tensor

from fw.core.randomness import Draws
from fw.core.templates.sampler import Example
from fw.core.testing import check


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_it_keeps_the_contract(eta: float) -> None:
    check(Example(steps=4, eta=eta))


class Gaussian:
    """The exact denoiser of images whose pixels are normal with standard deviation 0.2."""

    sigma_min, sigma_max = 0.01, 10.0

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return x * 0.2**2 / (0.2**2 + sigma**2)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_an_exact_denoiser_gives_samples_of_the_right_spread(eta: float) -> None:
    draws = Draws("images", rows=range(8))
    noise = draws.normal(1, 16, 16)  # (B, C, H, W)
    samples = Example(steps=200, eta=eta).sample(Gaussian(), noise, draws)
    assert abs(float(samples.std()) - 0.2) < 0.01
