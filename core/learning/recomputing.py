"""Activation checkpointing: blocks keep their inputs alone, and compute again what their gradients
need (Chen et al., arXiv 1604.06174). A third more work, for a fraction of the memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from fw.core.diffusion.taps import blocks_of
from fw.core.errors import FwError
from fw.core.kinds import Backbone
from fw.core.learning.splitting import meeting


def recompute_blocks(model: Backbone, network: nn.Module) -> None:
    """Let the blocks that the network names compute twice. FwError if it names none, or if batch
    norm would count its images twice."""
    blocks = blocks_of(network)
    if not blocks:
        raise FwError(
            f"checkpointing computes blocks again, and backbone '{model.name}' names none"
        )
    if layer := meeting(network):
        raise FwError(
            f"checkpointing computes blocks again, and in backbone '{model.name}' {layer} is a "
            "batch norm, which would count the images twice"
        )
    for block in blocks.values():
        block.forward = Recomputed(block.forward)


class Recomputed:
    """A block's forward that is called again for its gradient, with the same random numbers."""

    def __init__(self, forward: Callable[..., Any]):
        self.forward = forward

    def __call__(self, *args: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*args, **named)
        return checkpoint(self.forward, *args, use_reentrant=False, **named)
