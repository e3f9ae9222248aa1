"""What can be counted is the same on any machine: operations, floating-point operations, bytes,
and how often files are looked at."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


class Dispatched(TorchDispatchMode):
    """Operations that reach a kernel of torch, and the bytes that they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.operations += 1
        if not func.is_view:
            tensors = tree_leaves((args, kwargs, result))
            self.bytes += sum(each.nbytes for each in tensors if isinstance(each, Tensor))
        return result


def dispatched(work: Callable[[], object]) -> Dispatched:
    with Dispatched() as counts:
        work()
    return counts


def flops(work: Callable[[], object]) -> int:
    """Floating-point operations of matrix products, convolutions and attention."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


listening: list[tuple[str, str]] | None = None
"""What the audit hook hears, while somebody listens; a hook cannot be taken off."""


def hook(event: str, args: tuple[Any, ...]) -> None:
    if listening is None or event not in ("open", "os.scandir") or not args:
        return
    if isinstance(args[0], str | bytes):
        listening.append((event, os.fsdecode(args[0])))


sys.addaudithook(hook)


@contextmanager
def looks(root: Path) -> Iterator[Counter[str]]:
    """How often the folder `root` is walked (`walks`), and files below it are opened (`reads`)."""
    global listening
    listening, counts = [], Counter[str]()
    try:
        yield counts
    finally:
        heard, listening = listening, None
        for event, path in heard:
            if event == "os.scandir" and path == str(root):
                counts["walks"] += 1
            elif event == "open" and path.startswith(f"{root}/"):
                counts["reads"] += 1
