"""The contract of a prior, and what this one does."""

import torch

from fw.core.job import Job
from fw.core.templates.prior import Example
from fw.core.testing import check
from fw.core.types import Annotation, ConditionSpec


def test_it_keeps_the_contract() -> None:
    check(Example(images=7))


def test_it_keeps_as_many_different_conditions_as_it_is_told(tmp_job: Job) -> None:
    conditions = torch.arange(20.0)[:, None].expand(20, 3)  # (N, D)
    annotation = Annotation(ConditionSpec("vector", 3), conditions)
    for images in (1, 8, 50):
        bank = Example(images=images).bank(annotation, tmp_job)
        assert len(bank.unique(dim=0)) == len(bank) == min(images, 20)
        assert torch.isin(bank, conditions).all()
