"""Objectives with one planted fault each, beside an honest one."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from fw.core.kinds import Objective, Seen
from fw.plugins.objectives.dispersive import Dispersive


class Honest(Dispersive):
    """Keeps the contract."""

    name: ClassVar[str] = "honest"


class Blind(Honest):
    """Does not say that it reads blocks."""

    @property
    def requires(self) -> frozenset[str]:
        return frozenset()


class PerImage(Honest):
    """A term for every image."""

    def term(self, head: nn.Module, seen: Seen) -> Tensor:
        return seen.tokens.square().mean(dim=(1, 2))


class Undefined(Honest):
    """Divides by the number of images that are taken."""

    def term(self, head: nn.Module, seen: Seen) -> Tensor:
        return (seen.tokens.square().mean(dim=(1, 2)) * seen.taken).sum() / seen.taken.sum()


class Detached(Honest):
    """Teaches nobody."""

    def term(self, head: nn.Module, seen: Seen) -> Tensor:
        return super().term(head, seen).detach()


class Idle(Honest):
    """A head that nothing teaches."""

    def build(self, width: int, features: int) -> nn.Module:
        return nn.Linear(width, width)


class Takes(Honest):
    """Takes all images, whatever the interval."""

    def term(self, head: nn.Module, seen: Seen) -> Tensor:
        return seen.tokens.square().mean()


class Global(Honest):
    """Draws from torch's global generator."""

    def term(self, head: nn.Module, seen: Seen) -> Tensor:
        return super().term(head, seen) * torch.rand(())


class Centres(Honest):
    """Writes into the noise."""

    def term(self, head: nn.Module, seen: Seen) -> Tensor:
        seen.noise.sub_(seen.noise.mean())
        return super().term(head, seen)


class Head(nn.Module):
    """A factor, of a seed of its own if it is given one. How often it was asked is not in its state dict."""

    def __init__(self, seed: int | None = None):
        super().__init__()
        draw = None if seed is None else torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn((), generator=draw))
        self.asked = 0

    def forward(self) -> Tensor:
        self.asked += 1
        return self.weight * self.asked


class Forgets(Honest):
    """Counts beside the state dict."""

    def build(self, width: int, features: int) -> nn.Module:
        return Head()

    def term(self, head: nn.Module, seen: Seen) -> Tensor:
        return super().term(head, seen) * head()


class Unseeded(Honest):
    """Another head each time."""

    def build(self, width: int, features: int) -> nn.Module:
        return Head(next(SEEDS))

    def term(self, head: nn.Module, seen: Seen) -> Tensor:
        return super().term(head, seen) * head.weight.exp()  # type: ignore[operator]


SEEDS = iter(range(1000))

FAULTS: dict[type[Objective], str] = {
    Blind: "It requires `taps`, and `labels` if the encoder that it names uses them; its depth is in 0..1: it does not",
    PerImage: "term() is one finite number, for any block and batch, also where no image is taken or all are alike: "
    "objective honest: its term is torch.float32 (8,), not one number ()",
    Undefined: "all are alike: it is nan where none is taken",
    Detached: "The activations of an image that is taken get a gradient, so that the network learns from it: they get",
    Idle: "Every weight of the head gets a gradient: weight gets none",
    Takes: "if none is taken, the term is 0: one that is not taken gets a gradient",
    Global: "no other randomness comes in: it draws from torch's global random generator",
    Centres: "term() does not write into what it sees: it writes into `noise`",
    Forgets: "A head that was stored and restored goes on with the same bits: ",
    Unseeded: "build() depends on nothing but torch's global generator: two heads",
}
"""What the kit has to say about each."""
