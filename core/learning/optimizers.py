"""Adam and AdamW in one kernel for all weights, on the CPU as on a GPU.

torch's own default is a loop over the weights on the CPU: a dozen operations for each of them, at
every step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer

KINDS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


def adam(
    learned: Iterable[nn.Parameter],
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
    kind: Literal["adamw", "adam"] = "adamw",
) -> Optimizer:
    """The optimizer of `learned`, which lie on one device. `adam` adds the decay to the
    gradient, AdamW takes it off the weights."""
    return KINDS[kind](learned, lr=lr, betas=betas, weight_decay=weight_decay, fused=True)
