"""The contract of an autoencoder, and what this one does."""

import pytest
import torch

from fw.core.kinds import Dataset
from fw.core.templates.autoencoder import Example
from fw.core.testing import check


@pytest.mark.parametrize("keep", [1, 2])
def test_it_keeps_the_contract(keep: int) -> None:
    check(Example(keep=keep))


@pytest.mark.parametrize("keep", [4, 3, 1])
def test_it_keeps_what_its_frequencies_can_say(keep: int, tiny_dataset: Dataset) -> None:
    autoencoder = Example(patch=4, keep=keep)
    images = tiny_dataset.load("train").images
    network = autoencoder.build(tiny_dataset.shape)
    latents = autoencoder.encode(network, images).mean
    decoded = autoencoder.decode(network, latents)
    error = (decoded - (images / 127.5 - 1)).square().mean()
    assert error < 1e-10 if keep == 4 else error > 1e-3
    torch.testing.assert_close(autoencoder.encode(network, (decoded + 1) * 127.5).mean, latents)
