"""One stage done by several processes, each on a device of its own, on one node or on several.

A team that lost a member begins again from its last checkpoint, and ends with the same result. An
error that a member raises ends the stage, in its own words.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fw.core.errors import Interrupted, StageFailed
from fw.core.execution.crew import Crew, LocalCrew, Lost, Meeting, Unstarted
from fw.core.execution.listening import Listener
from fw.core.execution.member import Done, Failed, Here, Stopped
from fw.core.execution.place import Place
from fw.core.execution.trace import leave
from fw.core.execution.work import Worked
from fw.core.machine.leases import Right
from fw.core.stages.base import Stage

RESTARTS = 3
"""How often a team begins again that has lost a member."""

GRACE = 2.0
"""Seconds after an error in which the others can say what they know."""


@dataclass(frozen=True)
class Companions:
    """The crews of a team on other nodes, and where this one meets them."""

    crews: Sequence[Crew] = ()
    meeting: Meeting | None = None


@dataclass(frozen=True)
class Call:
    """What a team is to do."""

    stage: Stage
    folder: Path
    place: Place
    right: Right
    listener: Listener
    stopping: Callable[[], bool]


Gather = Callable[[Call], AbstractContextManager[Companions]]
"""Has the crews of other nodes begin, and ends with them; Interrupted if it was stopped before."""


def nobody(call: Call) -> AbstractContextManager[Companions]:
    """There is one node."""
    return nullcontext(Companions())


def together(call: Call, gather: Gather = nobody) -> Worked:
    """Do a stage in its folder with `place.ranks` processes.

    Raises StageFailed with what a member raised, or if members die again and again; Interrupted if
    it was stopped.
    """
    loss: str | None = None
    for _ in range(RESTARTS + 1):
        if loss is not None:
            call.listener.told(call.stage.id, f"{loss}; its {call.place.ranks} ranks begin again")
        team = Attempt(call)
        team.run(gather)
        if (loss := team.loss) is None:
            return team.outcome()
    raise StageFailed(f"{loss}, {RESTARTS + 1} times")


@dataclass
class Attempt:
    """A team's processes, and what became of them."""

    call: Call
    words: dict[int, Done | Stopped | Failed] = field(default_factory=dict)
    """How members say that they have ended, the first first."""
    lost: dict[int, Lost] = field(default_factory=dict)
    """Members that ended without a word before they were to end, the first first."""
    unstarted: str = ""
    """Why an agent could not start its members."""
    _ending: float | None = None
    """When all are to end, because one has failed."""
    _ended: bool = False
    """Whether they were asked to."""

    def run(self, gather: Gather) -> None:
        """Until all members on all nodes have ended."""
        call = self.call
        with gather(call) as others, ExitStack() as last:
            here = LocalCrew(call.stage, call.folder, call.place, call.right, others.meeting)
            last.callback(here.close)
            crews = [here, *others.crews]
            while not all(crew.over for crew in crews):
                if call.stopping():
                    for crew in crews:
                        crew.stop()
                if self._time_is_up(crews):
                    self._ended = True
                    for crew in crews:
                        crew.end()
                for crew in crews:
                    for rank, word in crew.hear():
                        self._take(rank, word)

    @property
    def loss(self) -> str | None:
        """Who died, if one did; an error that all know of matters more."""
        if not self.lost or any(isinstance(w, Failed) and not w.own for w in self.words.values()):
            return None
        rank, lost = next(iter(self.lost.items()))
        if lost.node:
            return f"node {lost.node} with rank {rank} of {self.call.place.ranks} was lost"
        hint = " (was there too little memory?)" if lost.code == -signal.SIGKILL else ""
        return f"rank {rank} of {self.call.place.ranks} died{hint}"

    def outcome(self) -> Worked:
        """What the first member has done, if none has failed."""
        ranks = self.call.place.ranks
        failures = sorted(
            (word for word in self.words.values() if isinstance(word, Failed)),
            key=lambda word: (word.own, word.waited),
        )
        for failure in failures:
            where = leave(self.call.folder, failure.trace) if failure.trace else ""
            who = f"rank {failure.rank} of {ranks}: " if failure.own else ""
            raise StageFailed(f"{who}{failure.reason}{where}")
        for word in self.words.values():
            if isinstance(word, Stopped):
                raise Interrupted(word.reason)
        first = self.words.get(0)
        if not isinstance(first, Done):
            why = f": {self.unstarted}" if self.unstarted else ""
            raise StageFailed(f"its {ranks} ranks could not be started{why}")
        return first.worked

    def _time_is_up(self, crews: Sequence[Crew]) -> bool:
        """A node that does not answer may be lost, and then all begin again: that is awaited."""
        if self._ending is None or time.monotonic() < self._ending:
            return False
        return bool(self.lost) or all(crew.answers for crew in crews)

    @property
    def _own_failure(self) -> bool:
        """Whether a member has failed for another reason than that one was not there."""
        return any(isinstance(word, Failed) and not word.waited for word in self.words.values())

    def _take(self, rank: int, word: Any) -> None:
        match word:
            case Here():
                pass
            case Done() | Stopped():
                self.words[rank] = word
            case Failed():
                self.words[rank] = word
                self._ending = time.monotonic() + GRACE
            case Lost():
                if rank in self.lost:
                    self.lost[rank] = word if self.lost[rank].code is None else self.lost[rank]
                elif not self._ended and not self._own_failure:
                    self.lost[rank] = word
                    self._ending = time.monotonic()
            case Unstarted(reason):
                self.unstarted = reason
                self._ending = time.monotonic()
            case _:
                call, *rest = word
                getattr(self.call.listener, call)(*rest)
