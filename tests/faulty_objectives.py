"""Objectives with one planted fault each, beside an honest one."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from variants import variants

from fw.core.kinds import Seen
from fw.core.testing import Clause, objective
from fw.plugins.objectives.dispersive import Dispersive


class Honest(Dispersive):
    """Keeps the contract."""

    name: ClassVar[str] = "honest"


class PerImage(Honest):
    """A term for every image."""

    def term(self, head: nn.Module, seen: Seen) -> Tensor:
        return seen.tokens.square().mean(dim=(1, 2))


class Head(nn.Module):
    """A factor, of a seed of its own if it is given one. How often it was asked is not in its
    state dict."""

    def __init__(self, seed: int | None = None):
        super().__init__()
        draw = None if seed is None else torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn((), generator=draw))
        self.asked = 0

    def forward(self) -> Tensor:
        self.asked += 1
        return self.weight * self.asked


def term(self: Any, head: nn.Module, seen: Seen) -> Any:
    return Honest.term(self, head, seen)


def of_the_taken(seen: Seen) -> Tensor:
    return (seen.tokens.square().mean(dim=(1, 2)) * seen.taken).sum() / seen.taken.sum()


def centred(self: Any, head: nn.Module, seen: Seen) -> Tensor:
    seen.noise.sub_(seen.noise.mean())
    return term(self, head, seen)


class Counting(Honest):
    """Its head counts beside the state dict."""

    def build(self, width: int, features: int) -> nn.Module:
        return Head()


class Numbered(Honest):
    """Another head each time."""

    def build(self, width: int, features: int) -> nn.Module:
        return Head(next(SEEDS))


variants(Honest, "requires", Blind=lambda self: frozenset())
variants(Honest, "build", Idle=lambda self, width, features: nn.Linear(width, width))
variants(
    Honest,
    "term",
    Undefined=lambda self, head, seen: of_the_taken(seen),
    Detached=lambda self, head, seen: term(self, head, seen).detach(),
    Takes=lambda self, head, seen: seen.tokens.square().mean(),
    Global=lambda self, head, seen: term(self, head, seen) * torch.rand(()),
    Centres=centred,
)
variants(Counting, "term", Forgets=lambda self, head, seen: term(self, head, seen) * head())
variants(
    Numbered, "term", Unseeded=lambda self, head, seen: term(self, head, seen) * head.weight.exp()
)


class Claims(Honest):
    """Compares images, and says that it does not."""

    @property
    def per_image(self) -> bool:
        return True


class Sums(Claims):
    """A sum over the images, not their mean."""

    def term(self, head: nn.Module, seen: Seen) -> Tensor:
        return (seen.tokens.square().mean(dim=(1, 2)) * seen.taken).sum()


SEEDS = iter(range(1000))

FAULTS: dict[str, tuple[Clause, str]] = {
    "Blind": (objective.says_what_it_needs, "taps"),
    "PerImage": (objective.one_finite_number, "objective honest: its term is torch.float32 (8,)"),
    "Undefined": (objective.one_finite_number, "nan where none is taken"),
    "Detached": (objective.teaches_the_network, "they get none"),
    "Idle": (objective.teaches_the_head, "weight gets none"),
    "Takes": (objective.only_what_is_taken, "one that is not taken"),
    "Claims": (objective.means_over_images, "one image fewer"),
    "Sums": (objective.means_over_images, "one image fewer"),
    "Global": (objective.function_of_what_it_sees, "torch's global random generator"),
    "Centres": (objective.nothing_is_written_into, "`noise`"),
    "Forgets": (objective.goes_on, ""),
    "Unseeded": (objective.head_of_the_seed, "two heads"),
}
"""The clause that a fault breaks, and what is said of it."""
