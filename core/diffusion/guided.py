"""Guidance: one rule for all modes, D_w = good + sum_i (w_i - 1) * (good - worse_i)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from fw.core import kinds
from fw.core.kinds import Guidance, Rule, Steering
from fw.core.kinds.boundaries import checked_rule, checked_worse


@dataclass
class Guided:
    """D_w = good + sum_i (w_i - 1) * (good - worse_i), changed by the rules, with the conditions
    of one batch bound."""

    model: kinds.Denoiser
    guidance: Sequence[Steering]
    condition: Tensor | None
    sigma_min: float
    sigma_max: float
    siblings: Sequence[kinds.Denoiser | None] = ()
    """For each entry of `guidance` the network that it asked for in place of the model, or None;
    may be empty."""
    diverged: dict[str, Tensor] = field(default_factory=dict)
    """By mode, bool (): whether its worse prediction was not finite although the good one was."""
    memory: dict[tuple[int, int], dict[str, Tensor]] = field(default_factory=dict)
    """What each rule remembers of each mode, by their places in the list."""

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        good = self.model(x, sigma, self.condition)
        result = good
        rules = [
            (place, rule) for place, rule in enumerate(self.guidance) if isinstance(rule, Rule)
        ]
        for place, (mode, sibling) in enumerate(
            itertools.zip_longest(self.guidance, self.siblings)
        ):
            if isinstance(mode, Guidance) and mode.active(sigma):
                worse = checked_worse(
                    mode, mode.worse(sibling or self.model, x, sigma, self.condition, good), good
                )
                difference = good - worse
                for other, rule in rules:
                    remembered = self.memory.setdefault((other, place), {})
                    difference = checked_rule(
                        rule, rule.direction(good, difference, remembered), good
                    )
                result = result + (mode.scale - 1) * difference
                first = good.isfinite().all() & ~worse.isfinite().all()
                self.diverged[mode.name] = self.diverged.get(mode.name, first) | first
        if result is not good:
            for _, rule in rules:
                result = checked_rule(rule, rule.result(good, result), good)
        return result
