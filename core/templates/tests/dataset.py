"""The contract of a dataset, and what this one does."""

import torch

from fw.core.templates.dataset import Example
from fw.core.testing import check


def test_it_keeps_the_contract() -> None:
    check(Example())


def test_the_brightest_quadrant_is_the_label() -> None:
    data = Example(side=10).load("test")
    quadrants = data.images.float().unfold(2, 5, 5).unfold(3, 5, 5).mean(dim=(4, 5))  # (N, 1, 2, 2)
    assert data.labels is not None
    assert torch.equal(quadrants.flatten(1).argmax(dim=1), data.labels)
