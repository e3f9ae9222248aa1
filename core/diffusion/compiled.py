"""Networks that torch.compile compiles, in place: their weights keep their names, so what is stored
with and without is interchangeable.

Where blocks are alike (`network.repeated`), each is compiled by itself: they share their compiled
code, which takes a fraction of the time. Other networks are compiled as a whole. What is computed
is the same but for rounding, as on another device, so no key says whether it was compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

BACKEND: Any = "inductor"

OPTIONS = {"inductor": {"fallback_random": True}}
"""Dropout draws what it draws uncompiled."""

METHODS = ("forward", "both", "logits")
"""What is called of a network (`fw.core.kinds.Network`, `JointNetwork`)."""

MANY = 1000
"""Calls from which on compiling a network pays: it takes up to a minute."""


def worth_compiling(wanted: bool | None, device: torch.device, calls: int) -> bool:
    """What a recipe wants; by default on a GPU, where the network is called often enough."""
    return device.type == "cuda" and calls >= MANY if wanted is None else wanted


def compile_network(network: nn.Module, warn: Callable[[str], None]) -> None:
    """Let the network be compiled when it is first called. Where torch cannot, it runs as it is,
    and `warn` is called with a sentence that says so."""
    blocks = getattr(network, "repeated", None)
    for module in [network] if blocks is None else blocks:
        for name in METHODS:
            if hasattr(module, name):
                method = Compiled(getattr(module, name), type(network).__name__, warn)
                setattr(module, name, method)


class Compiled:
    """A method of a module, compiled when it is first called."""

    def __init__(self, method: Callable[..., Any], network: str, warn: Callable[[str], None]):
        from torch._dynamo.exc import TorchDynamoException  # takes seconds, and few compile

        self.refusal = TorchDynamoException
        self.method = method
        self.network = network
        self.warn = warn
        options: Any = OPTIONS.get(BACKEND) if isinstance(BACKEND, str) else None
        self.fast: Callable[..., Any] | None = torch.compile(
            method, backend=BACKEND, dynamic=False, options=options
        )

    def __call__(self, *args: Any, **named: Any) -> Any:
        if self.fast is not None:
            try:
                return self.fast(*args, **named)
            except self.refusal as error:
                self.fast = None
                reason = " ".join(str(error).split())[:160] or type(error).__name__
                self.warn(
                    f"torch.compile cannot compile {self.network}, so it runs uncompiled and more "
                    f"slowly ({reason}); with `train.compile: false` it is not tried"
                )
        return self.method(*args, **named)
