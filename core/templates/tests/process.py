"""The contract of a process, and what this one does."""

import torch

from fw.core.templates.process import Example
from fw.core.testing import check


def test_it_keeps_the_contract() -> None:
    check(Example())


def test_a_network_that_knows_the_noise_denoises_perfectly() -> None:
    sigma = Example().sigmas(torch.tensor([0.0, 0.5, 0.999]))  # (B,)
    image, noise = torch.rand(3), torch.randn(3, generator=torch.Generator().manual_seed(0))
    skip, out, _, _ = Example().coefficients(sigma)
    torch.testing.assert_close(
        skip * (image + sigma * noise) + out * -noise, image, atol=1e-5, rtol=0
    )
