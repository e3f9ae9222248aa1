"""The weights of a network as they are stored."""

from __future__ import annotations

from torch import Tensor, nn

from fw.core.machine.transfer import on_cpu


def state_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in on_cpu(network.state_dict()).items()}
