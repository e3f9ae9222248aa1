"""A batch that a team shares: all members draw the numbers of all its images, and each keeps those
of its own rows."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from fw.core.machine.team import Team


@dataclass(frozen=True)
class Rows:
    """The rows that this process has of a step's batch.

    Several views of the images lie view by view: (views * images, ...). So do their numbers.
    """

    count: int = 0
    """Images of the step in all members. A team of one need not say it."""
    team: Team = field(default_factory=Team)

    @classmethod
    def shared(cls, count: int, team: Team) -> Rows:
        """A batch of `count` images; one with fewer images than members is done by each member
        whole."""
        return cls(count, team if team.size <= count else Team())

    @property
    def split(self) -> bool:
        """Whether other members have rows, too."""
        return self.team.size > 1

    @property
    def here(self) -> slice:
        """Which rows they are; those of an array that nobody shares are all."""
        return self.team.rows(self.count) if self.split else slice(None)

    def own(self, numbers: Tensor, dim: int = 0) -> Tensor:
        """This process's of numbers that were drawn for all, which lie along `dim`."""
        if not self.split:
            return numbers
        views = numbers.unflatten(dim, (-1, self.count)).movedim(dim + 1, 0)
        return views[self.here].movedim(0, dim + 1).flatten(dim, dim + 1)

    def everywhere(self, rows: int) -> int:
        """How many rows all have together, where this process has so many."""
        return rows // self._images * self.count if self.split else rows

    def whole(self, rows: Tensor) -> Tensor:
        """The rows of all (views * count, ...), with gradients, from those of this process.

        Of what is computed of them, all compute the same: `team.part` of a loss is what this
        process adds.
        """
        if not self.split:
            return rows
        views = rows.unflatten(0, (-1, self._images)).movedim(1, 0)
        return self.team.whole(views, self.count).movedim(0, 1).flatten(0, 1)

    def part(self, mean: Tensor) -> Tensor:
        """What a mean over this process's rows adds to the mean over all."""
        return mean * (self._images / self.count) if self.split else mean

    def mean(self, values: Tensor, dim: tuple[int, ...] = (0,), keepdim: bool = False) -> Tensor:
        """The mean over the rows of all, along these dimensions, without gradients."""
        own = values.detach().mean(dim=dim, keepdim=keepdim)
        return self.team.total(self.part(own))

    @property
    def _images(self) -> int:
        return self.here.stop - self.here.start


ALONE = Rows()
"""Of a process that shares nothing."""
