"""Queues of earlier embeddings, as lightly's memory bank keeps them, that survive a crash."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from lightly.models.modules.memory_bank import MemoryBankModule


def checkpointed(queue: MemoryBankModule) -> MemoryBankModule:
    """The queue, of torch's default type, with its content in its state dict, where lightly leaves
    it out and a crash would lose it."""
    queue.to(torch.get_default_dtype())
    for name in ("bank", "bank_ptr"):
        queue.register_buffer(name, queue.get_buffer(name), persistent=True)
    return queue
