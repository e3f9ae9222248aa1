"""Compute once what several calls of a network have in common: the same images at the same noise
level, in which attention guidance changes some layers.

All that modules return before the first changed layer is the same in both calls, to the bit. Which
modules these are shows one pass of one image: those that have returned when the layer mixes its
tokens. So the beginning that is shared ends inside a block, behind its queries, keys and values.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from fw.core.diffusion.taps import Remembering
from fw.core.kinds import Attend, Changed, scaled_dot_product

MOST = 2
"""Conditions of one batch whose beginnings are remembered: its own, and none."""


@dataclass(frozen=True)
class Order:
    """The layers that mix tokens through `attend`, in the order of their calls, each with the
    modules that have returned before it."""

    before: Mapping[str, Sequence[str]]

    def first(self, layers: Collection[str]) -> str | None:
        return next((layer for layer in self.before if layer in layers), None)

    def until(self, last: str | None, layers: Collection[str]) -> list[str]:
        """The modules that have returned before any of these layers, up to the `last`; None is the
        end of the network."""
        called = list(self.before)
        reached = called if last is None else called[: called.index(last) + 1]
        paths = (path for layer in reached if layer in layers for path in self.before[layer])
        return list(dict.fromkeys(paths))


def order(network: nn.Module, predict: Callable[[Attend], Tensor]) -> Order:
    """What `predict`, one pass of the network with this `attend`, shows.

    A module counts if it is called once in a pass, and if nothing writes into what it returned. Of
    two modules, one in the other, the outer one counts.
    """
    calls: Counter[str] = Counter()
    returned: list[tuple[str, list[tuple[Tensor, int | None]]]] = []
    layers: dict[str, int] = {}  # how many modules had returned before each

    def note(path: str, output: Any) -> None:
        calls[path] += 1
        tensors = [each for each in tree_leaves(output) if isinstance(each, Tensor)]
        returned.append((path, [(each, version(each)) for each in tensors]))

    def attend(query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
        layers.setdefault(layer, len(returned))
        return scaled_dot_product(query, key, value, layer)

    modules = {path: module for path, module in network.named_modules() if path}
    with (
        torch.inference_mode(False),  # where tensors count how often they are written into
        torch.no_grad(),
        torch.compiler.set_stance("force_eager"),
        ExitStack() as hooks,
    ):
        for path, module in modules.items():
            hook = module.register_forward_hook(
                lambda _module, _inputs, output, path=path: note(path, output)
            )
            hooks.callback(hook.remove)
        predict(attend)
    once = [path if calls[path] == 1 and unwritten(tensors) else None for path, tensors in returned]
    return Order(
        {
            layer: outermost([path for path in once[:count] if path is not None])
            for layer, count in layers.items()
        }
    )


def version(tensor: Tensor) -> int | None:
    """How often it was written into; None where that is not counted."""
    return None if tensor.is_inference() else tensor._version


def unwritten(tensors: Sequence[tuple[Tensor, int | None]]) -> bool:
    return all(then is not None and version(each) == then for each, then in tensors)


def outermost(paths: Sequence[str]) -> list[str]:
    """The paths that are not within another one."""
    known = set(paths)
    return [
        path
        for path in paths
        if not any(path[:dot] in known for dot, sign in enumerate(path) if sign == ".")
    ]


class Shared:
    """What the calls of one network share, for one batch of noisy images at a time."""

    def __init__(self, network: nn.Module, order: Order):
        self.network = network
        self.order = order
        self.layers: set[str] = set()
        """The first layers that guidance changes. Where one comes up that was not expected, its
        first call shares nothing, and the later ones do."""
        self.batch: tuple[weakref.ref[Tensor], float] | None = None
        self.known: list[tuple[Tensor | None, dict[str, Any]]] = []
        """What modules returned for this batch, by the identity of the condition; the batch's own
        condition comes first."""

    def expect(self, layers: Collection[str]) -> None:
        """Guidance will change these layers."""
        if first := self.order.first(layers):
            self.layers.add(first)

    @contextmanager
    def during(
        self, x: Tensor, sigma: float, condition: Tensor | None, attend: Attend | None
    ) -> Iterator[None]:
        """Let a call of the network with these inputs compute only what is not known yet, and
        remember what later calls may need."""
        changed = attend.layers if isinstance(attend, Changed) else ()
        first = self.order.first(changed)
        if attend is not None and first is None:
            yield  # it may mix in any layer
            return
        self.expect(changed)
        known = self._of(x, sigma, condition, usual=attend is None)
        if known is None:
            yield
            return
        forwards = {
            path: Remembering(self.network.get_submodule(path))
            for path in self.order.until(first, self.layers)
        }
        try:
            for path, forward in forwards.items():
                forward.enter(known.get(path), keep=path not in known)
            yield
            for path, forward in forwards.items():
                if forward.kept is not None:
                    known[path] = forward.kept
        finally:
            for forward in forwards.values():
                forward.leave()

    def _of(
        self, x: Tensor, sigma: float, condition: Tensor | None, usual: bool
    ) -> dict[str, Any] | None:
        """What is known of these images under this condition; None if nothing is remembered.

        A step begins when the images of the last one are gone, at another noise level, or with
        the usual prediction of what the last one began with: x may have been written into. Other
        images beside those of the step are a mode's own.
        """
        images, level = (self.batch[0](), self.batch[1]) if self.batch else (None, None)
        again = usual and images is x and condition is self.known[0][0]
        if images is None or level != sigma or again:
            self.batch, self.known = (weakref.ref(x), sigma), []
        elif images is not x:
            return None
        for other, known in self.known:
            if other is condition:
                return known
        if len(self.known) == MOST:
            return None
        self.known.append((condition, {}))
        return self.known[-1][1]
