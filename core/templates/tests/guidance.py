"""The contract of a guidance mode, and what this one does."""

import torch

from fw.core.templates.guidance import Example
from fw.core.testing import check
from fw.core.testing.tiny import denoiser


def test_it_keeps_the_contract() -> None:
    check(Example(scale=1.5))


def test_a_blur_keeps_what_is_flat_and_takes_detail_away() -> None:
    flat = torch.full((2, 1, 8, 8), 0.3)  # (B, C, H, W)
    fine = torch.tensor([1.0, -1.0]).repeat(2, 1, 8, 4)
    mode = Example(radius=2)
    worse = [mode.worse(denoiser(), good, 1.0, None, good) for good in (flat, fine)]
    torch.testing.assert_close(worse[0], flat)
    assert worse[1].abs().max() < 0.5
