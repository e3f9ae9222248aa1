"""The processes that do one stage together, by torch.distributed.

What a step draws is a function of (seed, step), so every member draws it all and keeps its rows.
What compares images gets the `whole` batch, with gradients. Terms of the loss are summands: those
of all members, added up, are the loss that one process would have; so are their gradients and what
they log. A team of one does nothing, so stages are written as if they were alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Item = TypeVar("Item")

APART = timedelta(hours=6)
"""How long members may be apart that each do work of their own, such as files of images. In an
exchange of a step they wait for each other for less."""


@dataclass(frozen=True)
class Team:
    """See the module's docstring. Its methods do something together, unless they say otherwise:
    all members call them, in the same order."""

    rank: int = 0
    size: int = 1
    control: Any = None
    """A group of torch.distributed for what hosts decide, so that no GPU is waited for."""

    @property
    def leads(self) -> bool:
        """Whether this member writes what the team has made. It asks nobody."""
        return self.rank == 0

    def rows(self, count: int) -> slice:
        """This member's rows of `count`; shares differ by one at most. It asks nobody."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def own(self, rows: Tensor) -> Tensor:
        """This member's of the rows (count, ...) of all. It asks nobody."""
        return rows if self.size == 1 else rows[self.rows(len(rows))]

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """This member's of items that are independent of each other. It asks nobody."""
        return items[self.rank :: self.size]

    def part(self, value: Tensor) -> Tensor:
        """What each member adds of a value that all of them compute alike. It asks nobody."""
        return value if self.size == 1 else value / self.size

    def whole(self, rows: Tensor, count: int) -> Tensor:
        """The rows of all members in order (count, ...), with gradients.

        A loss that all members compute of it is to be divided by `part`: a row's gradient is then
        added up over the members.
        """
        return rows if self.size == 1 else Whole.apply(rows, self, count)

    def total(self, value: Tensor) -> Tensor:
        """The sum over the members, without gradients; of the same shape."""
        if self.size == 1:
            return value
        value = value.detach().clone()
        dist.all_reduce(value)
        return value

    def totals(self, values: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The sums of several; those that are None are so for all members."""
        there = [each.flatten() for each in values if each is not None]
        if self.size == 1 or not there:
            return list(values)
        parts = iter(self.total(torch.cat(there)).split([len(each) for each in there]))
        return [None if each is None else next(parts).view_as(each) for each in values]

    def most(self, values: Sequence[float]) -> list[float]:
        """The largest of each number that a member says, on the hosts."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def added(self, values: Sequence[float]) -> list[float]:
        """The sum of each number over the members, on the hosts."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def said(self, value: Item) -> list[Item]:
        """What every member says, on the hosts; some may come hours later."""
        if self.size == 1:
            return [value]
        self.wait()
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def any(self, flag: bool) -> bool:
        """Whether a member says so."""
        return self.most([float(flag)])[0] > 0

    def wait(self) -> None:
        """Until all are here, for hours where they do work of their own."""
        if self.size > 1:
            dist.monitored_barrier(self.control, timeout=APART)

    def _reduced(self, values: Sequence[float], operation: Any) -> list[float]:
        if self.size == 1:
            return list(values)
        reduced = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(reduced, op=operation, group=self.control)
        return reduced.tolist()


ALONE = Team()
"""A process without others."""


class Whole(torch.autograd.Function):
    """Gathers rows (b, ...) of the members, b of which may differ by one, to (count, ...)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, team: Team, count: int) -> Tensor:
        ctx.team = team
        spans = [Team(rank, team.size).rows(count) for rank in range(team.size)]
        counts = [span.stop - span.start for span in spans]
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in spans]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Every member has the whole gradient, divided by their number: `part` of the loss."""
        return ctx.team.own(gradients[0]) * ctx.team.size, None, None
