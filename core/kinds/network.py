"""What a backbone builds, F(x, noise, condition), and how its layers mix tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
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
