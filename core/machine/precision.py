"""What `precision` in a recipe means: in which numbers networks compute.

fp32   strict single precision. Every stage starts in it, and evaluators know no other.
tf32   the same numbers, but a GPU shortens the factors of its products to 10 bits (TensorFloat-32);
       on the CPU it is fp32, to the bit
bf16   networks run under torch's autocast; weights, losses, averages and results stay fp32

The device decides nothing: what is asked for stands in the recipe and in the keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

Precision = Literal["fp32", "tf32", "bf16"]

ABOUT = (
    "fp32 is strict; tf32 lets a GPU shorten the factors of its products; bf16 runs the network "
    "under autocast"
)
"""What recipes' fields say of themselves."""


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """For passes of a network; what is called meanwhile without one is not left alone either."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def lengthened(tensor: Tensor) -> Tensor:
    """What a network returns under autocast, in fp32; other numbers stay as they are."""
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


@contextmanager
def shortened(precision: Precision, device: torch.device) -> Iterator[None]:
    """For a whole piece of work, gradients included: with tf32, products on a GPU in TensorFloat-32
    while this lasts. It does nothing for other precisions and devices."""
    if precision != "tf32" or device.type != "cuda":
        yield
        return
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = True
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before
