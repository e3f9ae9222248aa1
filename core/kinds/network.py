"""What a backbone builds, F(x, noise, condition), and how its layers mix tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class Attend(Protocol):
    """How a layer mixes tokens: the one extension point inside networks."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
        """query, key, value: (B, heads, N, d); returns (B, heads, N, d). `layer` is the layer's
        name."""


def scaled_dot_product(query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
    """The usual `Attend`: softmax(query key^T / sqrt(d)) value."""
    return scaled_dot_product_attention(query, key, value)


@dataclass(frozen=True)
class Changed:
    """An `Attend` that changes only some layers: blocks before the first of them need not be
    computed again."""

    layers: Collection[str]
    mix: Attend

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, layer: str) -> Tensor:
        return (self.mix if layer in self.layers else scaled_dot_product)(query, key, value, layer)


def mixing(attend: Attend | None, layer: str) -> Attend:
    """How this layer mixes its tokens. A block that is given this, and not `attend`, is one
    compiled block for all layers that mix in the same way."""
    if isinstance(attend, Changed):
        attend = attend.mix if layer in attend.layers else None
    return attend or scaled_dot_product


class Network(Protocol):
    """What a backbone builds: F(x, noise, condition)."""

    def __call__(
        self,
        x: Tensor,
        noise: Tensor,
        condition: Tensor | None = None,
        dropped: Tensor | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        """x (B, C, H, W), noise (B,) -> (B, C, H, W).

        `condition` None means the null condition; `dropped`, bool (B,), replaces single conditions
        by it.
        """


class Augmentable(Network, Protocol):
    """What a backbone with an `augmentation_size` builds: it can be given how the image was
    transformed (arXiv 2206.00364, appendix F.2)."""

    def __call__(
        self,
        x: Tensor,
        noise: Tensor,
        condition: Tensor | None = None,
        dropped: Tensor | None = None,
        attend: Attend | None = None,
        augmentation: Tensor | None = None,
    ) -> Tensor:
        """`augmentation` is float (B, augmentation_size). Zeros, which None stands for, mean an
        image as it was; samples are drawn so."""


class Tapped(Network, Protocol):
    """What a backbone that provides `taps` builds."""

    def taps(self) -> Mapping[str, nn.Module]:
        """Its blocks by name, in the order in which they are called. Each returns (B, C, h, w)
        or (B, N, D), or a tuple that begins with it. Later blocks must not write into what it
        returned."""


class Repeated(Network, Protocol):
    """What a backbone builds whose blocks are alike: compiled one by one they share their compiled
    code, which takes a fraction of the time. A network without this is compiled as a whole."""

    @property
    def repeated(self) -> Sequence[nn.Module]:
        """The blocks that are alike."""


@dataclass(frozen=True)
class InDiffusers:
    """A network as diffusers has it, and how F is called through it."""

    model: nn.Module
    """One of diffusers' models with these weights, and with a `save_pretrained`."""
    call: str
    """The body of a Python function `F(x, noise, condition)` that returns what the network does, of
    `torch`, `model` and `inputs`; condition None is the null."""
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors that make the model's inputs of conditions; they are kept beside it."""


class Portable(Protocol):
    """What a backbone builds that is one of diffusers' networks at heart: `fw export` writes it as
    such."""

    def in_diffusers(self) -> InDiffusers:
        """A copy. ValueError, with the reason, if diffusers cannot have it."""
        ...
