"""Read what a network's blocks return. No hook is left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fw.core.errors import FwError

if TYPE_CHECKING:
    from fw.core.kinds import Backbone
    from fw.core.types import ConditionSpec


def blocks_of(network: nn.Module) -> Mapping[str, nn.Module]:
    """The blocks that a network names (`fw.core.kinds.Tapped`), in the order of their calls;
    none if it names none."""
    return network.taps() if hasattr(network, "taps") else {}  # type: ignore[operator]


def misnamed(model: Backbone, shape: tuple[int, int, int], names: Sequence[str]) -> str | None:
    """What is wrong with these names of a model's blocks. No weights are made for it.

    None if nothing is wrong, or if it takes the real network to say, as when that is loaded from
    files.
    """
    if not names:
        return None
    try:
        with torch.device("meta"):
            known = list(blocks_of(model.build(shape, None)))
    except Exception:
        return None
    fault = absent(known, names)
    return fault and f"backbone '{model.name}' {fault}"


def attention_layers(
    model: Backbone, shape: tuple[int, int, int], condition: ConditionSpec | None
) -> dict[str, int]:
    """The layers that mix tokens through `attend`, in the order of their calls, and how many
    tokens each has. No weights are made for it; empty if it takes the real network to say."""
    called: dict[str, int] = {}

    def record(query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
        called[layer] = query.shape[2]
        return value

    try:
        with torch.device("meta"), torch.no_grad():
            network = model.build(shape, condition).eval()
            network(torch.zeros(1, *shape), torch.zeros(1), None, None, record)
    except Exception:
        return {}
    return called


def absent(known: Iterable[str], names: Sequence[str]) -> str | None:
    """`has no block 'up.7' (it has ...)`, for the first name that is not known; None if all are."""
    for name in names:
        if name not in known:
            return f"has no block '{name}' (it has {', '.join(known) or 'none with a name'})"
    return None


@contextmanager
def tapped(network: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """What these blocks have returned when this ends, by name; FwError if there is no such
    block."""
    blocks = blocks_of(network)
    if fault := absent(blocks, names):
        raise FwError(f"the network {fault}")
    forwards = {name: Remembering(blocks[name]) for name in names}
    activations: dict[str, Tensor] = {}
    try:
        for forward in forwards.values():
            forward.enter(known=None, keep=True)
        yield activations
        for name, forward in forwards.items():
            if (returned := forward.kept) is not None:
                activations[name] = returned if isinstance(returned, Tensor) else returned[0]
    finally:
        for forward in forwards.values():
            forward.leave()


class Remembering:
    """A module that keeps what it returns, or returns what is known without computing."""

    def __init__(self, module: nn.Module):
        self.module = module
        self.compute = module.forward
        self.own = "forward" in vars(module)
        self.keep = False
        self.known: Any = None
        self.kept: Any = None

    def enter(self, known: Any, keep: bool) -> None:
        self.known, self.keep = known, keep
        self.module.forward = remembering(self)

    def leave(self) -> None:
        self.known = self.kept = None
        if self.own:
            self.module.forward = self.compute
        else:
            vars(self.module).pop("forward", None)


def remembering(state: Remembering) -> Callable[..., Any]:
    """The forward of such a module: a function without names and tables, since what is compiled is
    compiled again for another object, but not for another function of the same code."""

    def forward(*args: Any, **named: Any) -> Any:
        if state.known is not None:
            return state.known
        returned = state.compute(*args, **named)
        if state.keep:
            state.kept = returned
        return returned

    return forward


def as_tokens(activation: Tensor) -> Tensor:
    """Positions as tokens: (B, C, h, w) -> (B, h * w, C); (B, N, D) as it is."""
    return activation.flatten(2).transpose(1, 2) if activation.dim() == 4 else activation


def pooled(activation: Tensor) -> Tensor:
    """The mean over positions: (B, C, h, w) -> (B, C), (B, N, D) -> (B, D)."""
    return activation.flatten(2).mean(dim=2) if activation.dim() == 4 else activation.mean(dim=1)


def usual_block(network: nn.Module) -> str:
    """The block whose activations recognise best, by the literature (DDAE, arXiv 2303.09769; DIFT,
    arXiv 2306.03881).

    In a U-Net it is the decoder's at the second-lowest resolution, in a transformer the middle one.
    """
    blocks = list(blocks_of(network))
    levels = [block for block in blocks if block.startswith("up.")]
    if levels:
        return levels[1] if len(levels) >= 3 else levels[0]
    if not blocks:
        raise FwError("the network names no blocks, so none can be read")
    return blocks[len(blocks) // 2]
