"""The contract of an objective, and what this one does."""

import torch
from torch import Tensor, nn

from fw.core.kinds import Seen
from fw.core.templates.objective import Example
from fw.core.testing import check


def test_it_keeps_the_contract() -> None:
    check(Example(dims=8))


def test_it_is_zero_where_nothing_is_correlated_and_not_where_something_is() -> None:
    apart = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])  # (B, D)
    assert term(apart) == 0
    assert term(apart.cumsum(dim=1)) > 0.1


def term(features: Tensor) -> Tensor:
    """Of images of one token each, without a projection."""
    images, levels = torch.zeros(len(features), 1, 8, 8), torch.ones(len(features))
    seen = Seen(features[:, None], levels > 0, images, levels, images, torch.Generator())
    return Example(dims=2).term(nn.Identity(), seen)
