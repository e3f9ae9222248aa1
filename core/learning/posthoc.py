"""Averages of weights whose length is chosen after training (Karras et al., arXiv 2312.02696,
section 3 and appendix C).

A power-function average at step t has of the weights of step s the share p(s) = (g + 1) s^g /
t^(g+1), so its length is a share of the training so far: its relative width, the standard deviation
of p over t. A training tracks a few, and keeps them at its snapshots. Any other is then close to a
sum of the kept ones, whose factors solve a least-squares problem between the functions p: no
weights of the network are in it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fw.core.settings import Train


@dataclass(frozen=True)
class PowerAverage:
    """One average: its relative width, and after how many steps it was taken."""

    width: float
    step: int

    @property
    def exponent(self) -> float:
        return exponent(self.width)


def kept_averages(settings: Train, until: int) -> list[PowerAverage]:
    """Those that a training keeps up to this step, which is that of a snapshot."""
    steps = [step for step in settings.snapshot_steps if step <= until]
    return [PowerAverage(width, step) for step in steps for width in settings.averages]


@functools.lru_cache
def exponent(width: float) -> float:
    """g of the power function s^g that has this relative width.

    Its square is (g + 1) / ((g + 2)^2 (g + 3)), so g is the largest real root of g^3 + 7 g^2 +
    (16 - width^-2) g + (12 - width^-2).
    """
    inverse = width**-2
    roots = np.roots([1, 7, 16 - inverse, 12 - inverse])
    return float(roots[np.isreal(roots)].real.max())


def power_decay(width: float, step: int) -> float:
    """How much of the average is kept at this step, the first of which is 1."""
    return (1 - 1 / step) ** (exponent(width) + 1)


def overlaps(some: Sequence[PowerAverage], others: Sequence[PowerAverage]) -> Tensor:
    """The integrals of the products of their functions p, in units of 1 / step: float64
    (len(some), len(others))."""
    (t, g), (s, h) = (columns(averages) for averages in (some, others))
    t, g = t[:, None], g[:, None]
    early = torch.where(t < s, (t / s) ** h, (s / t) ** g)
    return (g + 1) * (h + 1) / (g + h + 1) * early / torch.maximum(t, s)


def columns(averages: Sequence[PowerAverage]) -> tuple[Tensor, Tensor]:
    """Their steps and their exponents, float64."""
    steps = torch.tensor([average.step for average in averages], dtype=torch.float64)
    return steps, torch.tensor([average.exponent for average in averages], dtype=torch.float64)


def factors(kept: Sequence[PowerAverage], wanted: PowerAverage) -> Tensor:
    """What the kept averages are multiplied with to make the wanted one, float64 (len(kept),): the
    least-squares solution between their functions, scaled so that weights that never changed stay
    as they are."""
    between, towards = overlaps(kept, kept), overlaps(kept, [wanted])
    norms = between.diagonal().sqrt()[:, None]
    scaled = torch.linalg.lstsq(between / (norms * norms.T), towards / norms, driver="gelsy")
    solution = (scaled.solution / norms)[:, 0]
    return solution / solution.sum()


def error(kept: Sequence[PowerAverage], wanted: PowerAverage) -> float:
    """How far the sum of the kept averages is from the wanted one: the norm of the difference of
    their functions, as a share of the norm of the wanted one's. 0 is exact."""
    everything = [*kept, wanted]
    signed = torch.cat([factors(kept, wanted), -torch.ones(1, dtype=torch.float64)])
    between = overlaps(everything, everything)
    off = float(signed @ between @ signed)
    return math.sqrt(max(0.0, off / float(between[-1, -1])))


class WeightedSum:
    """A sum of states of a network, tensor by tensor in float64; one state is held at a time."""

    def __init__(self) -> None:
        self.total: dict[str, Tensor] = {}

    def add(self, state: Mapping[str, Tensor], factor: float) -> None:
        for name, tensor in state.items():
            term = factor * tensor.double()
            self.total[name] = self.total[name] + term if name in self.total else term

    def like(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`state` with the sums in place of the tensors that were added, in its precision."""
        return {
            name: self.total[name].to(tensor.dtype) if name in self.total else tensor
            for name, tensor in state.items()
        }
