"""EDM's non-leaky augmentation (arXiv 2206.00364, appendix F.2): images are transformed, and the
network is given how."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fw.core.diffusion.denoiser import NetworkDenoiser
from fw.plugins.processes.edm import EDM


class Remembering(nn.Module):
    """Predicts zeros, and remembers by which further arguments it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[dict[str, Tensor]] = []

    def forward(
        self, x: Tensor, noise: Tensor, condition=None, dropped=None, attend=None, **more: Tensor
    ) -> Tensor:
        self.calls.append(more)
        return torch.zeros_like(x)


def test_only_the_loss_of_augmented_images_says_how_they_were_transformed() -> None:
    network, images, label = Remembering(), torch.zeros(2, 3, 8, 8), torch.ones(2, 9)
    model, sigma = NetworkDenoiser(network, EDM()), torch.ones(2)
    model.loss(images, sigma, images, None, None, label)
    model.loss(images, sigma, images, None, None)
    model(images, 1.0)
    assert [list(call) for call in network.calls] == [["augmentation"], [], []]
    assert network.calls[0]["augmentation"] is label
