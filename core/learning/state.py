"""The weights of a network as they are stored."""

from __future__ import annotations

from torch import Tensor, nn


def state_of(network: nn.Module) -> dict[str, Tensor]:
    return {
        name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()
    }
