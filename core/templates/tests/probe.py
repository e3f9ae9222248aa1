"""The contract of a probe, and what this one does."""

import torch

from fw.core.job import Job
from fw.core.templates.probe import Example
from fw.core.testing import check
from fw.core.types import Examples


def test_it_keeps_the_contract() -> None:
    check(Example())
    check(Example(of="model", sigma=0.1))


def test_an_image_has_the_class_of_the_nearest_mean(tmp_job: Job) -> None:
    train = Examples(
        torch.tensor([[0.0], [2.0], [10.0]]), torch.tensor([0, 0, 2]), classes=3
    )  # means 1 and 10
    test = Examples(
        torch.tensor([[5.0], [6.0], [-9.0], [5.4]]), torch.tensor([0, 2, 2, 0]), classes=3
    )
    [share] = Example().score(train, test, tmp_job).values()
    assert share == 0.75
