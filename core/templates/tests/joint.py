"""The contract of a joint backbone, and what this one does."""

import torch
from torch.nn.functional import cross_entropy

from fw.core.templates.joint import Example
from fw.core.testing import check
from fw.core.types import ConditionSpec


def test_it_keeps_the_contract() -> None:
    check(Example(width=8))


def test_it_learns_to_recognise_and_to_denoise_at_once() -> None:
    torch.manual_seed(0)
    network = Example(width=8, blocks=1).build((1, 4, 4), ConditionSpec("class", 2))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    classes, noise = torch.arange(8) % 2, torch.zeros(8)
    x = classes[:, None, None, None].expand(8, 1, 4, 4).float()  # class 1 is white, class 0 is grey
    losses = []
    for _ in range(150):
        prediction, logits = network.both(x, noise)
        losses.append((prediction - x).square().mean() + cross_entropy(logits, classes))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1].item() < 0.1 < losses[0].item()
    assert torch.equal(network.logits(x, noise).argmax(dim=1), classes)
