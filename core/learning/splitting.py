"""Which networks a batch cannot be split for: those in which its images meet."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fw.core.errors import FwError
from fw.core.kinds import Backbone
from fw.core.types import ConditionSpec


def meeting(network: nn.Module) -> str | None:
    """The name of a layer in which the images of a batch meet, as in batch norm; None if there is
    none."""
    layers = network.named_modules()
    return next((name for name, layer in layers if isinstance(layer, _BatchNorm)), None)


def check_splits(model: Backbone, network: nn.Module) -> None:
    """FwError if images meet in the network."""
    if layer := meeting(network):
        raise FwError(because(model, layer))


def unsplit(
    model: Backbone, shape: tuple[int, int, int], condition: ConditionSpec | None
) -> str | None:
    """Why batches of this model cannot be split; None if they can, or if it takes the real network
    to say. No weights are made for it."""
    try:
        with torch.device("meta"):
            layer = meeting(model.build(shape, condition))
    except Exception:
        return None
    return layer and because(model, layer)


def because(model: Backbone, layer: str) -> str:
    return (
        f"accumulate splits batches, and in backbone '{model.name}' the images of a batch meet: "
        f"{layer} is a batch norm"
    )
