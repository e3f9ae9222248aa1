"""The contract of a backbone, and what this one does."""

import torch

from fw.core.templates.backbone import Example
from fw.core.testing import check
from fw.core.types import ConditionSpec


def test_it_keeps_the_contract() -> None:
    check(Example(width=8))


def test_it_learns_what_a_condition_means() -> None:
    torch.manual_seed(0)
    network = Example(width=8, blocks=1).build((1, 4, 4), ConditionSpec("class", 2))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    x, noise, condition = torch.zeros(8, 1, 4, 4), torch.zeros(8), torch.arange(8) % 2
    target = (
        condition[:, None, None, None].expand_as(x).float()
    )  # class 1 is white, class 0 is grey
    losses = []
    for _ in range(150):
        loss = (network(x, noise, condition) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.02 < losses[0]
