"""The contract of a rule, and what this one does."""

import torch

from fw.core.templates.rule import Example
from fw.core.testing import check


def test_it_keeps_the_contract() -> None:
    check(Example(longest=0.1))


def test_long_differences_are_shortened_and_short_ones_stay() -> None:
    good = torch.ones(2, 1, 3, 3)  # (B, C, H, W)
    difference = torch.stack([good[0], good[1] / 100])
    direction = Example(longest=0.5).direction(good, difference, {})
    torch.testing.assert_close(direction[0], good[0] / 2)
    assert torch.equal(direction[1], difference[1])
