"""The contract of a metric, and what this one does."""

import torch

from fw.core.templates.metric import Example
from fw.core.testing import check
from fw.core.types import Reference


def test_it_keeps_the_contract() -> None:
    check(Example())


def test_moving_all_features_by_a_vector_scores_its_length() -> None:
    real = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))  # (N, D)
    prepared = Example().prepare(Reference(train=real, held_out=real))
    [same] = Example().compare(prepared, real).values()
    [moved] = Example().compare(prepared, real + torch.tensor([3.0, 4.0])).values()
    assert (round(same, 4), round(moved, 4)) == (0, 5)
