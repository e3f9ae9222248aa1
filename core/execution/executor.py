"""What runs a plan's stages: who does it, who hears of it, and what becomes of them.

The executor of one machine is in core/execution/local.py, that of a Ray cluster in
core/execution/cluster.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from fw.core.errors import Interrupted, StageFailed
from fw.core.execution.listening import Listener
from fw.core.execution.place import Place
from fw.core.plan.graph import Plan

STOPPED = "stopped; everything finished is kept, and the same command continues from here"
SKIPPED = "stages that needed it were not tried; the others are finished and kept"

TRIES = 3
"""How often a cluster does a stage again whose node or process was lost, or whose node ran out of
memory; in the last case Ray would try for ever."""


class StageListener(Listener, Protocol):
    """A listener that also hears how stages start and end."""

    def started(self, stage: str, node: str = "") -> None:
        """`node` is where, if that is not this machine."""

    def waiting(self, stage: str, holder: str) -> None:
        """Another run is at it, and this one waits, or has something else to do first."""

    def done(self, stage: str, already: bool = False) -> None:
        """`already`: it was there when it was its turn, because another run has made it, say."""

    def failed(self, stage: str, reason: str) -> None: ...


@dataclass
class Outcome:
    """What became of the stages: why some failed, and which could not be tried because of that."""

    failed: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    stopped: bool = False

    @property
    def status(self) -> str:
        """What a tracker calls it."""
        return "killed" if self.stopped else "failed" if self.failed else "finished"

    def failure(self, plan: Plan) -> StageFailed | None:
        """Why stages failed, if any did. Raises Interrupted if the work was stopped."""
        if self.stopped:
            raise Interrupted(STOPPED)
        if not self.failed:
            return None
        lines = [f"{plan.stages[stage].title}: {reason}" for stage, reason in self.failed.items()]
        if self.skipped:
            lines.append(f"{len(self.skipped)} {SKIPPED}")
        return StageFailed("\n".join(lines))


class Executor(Protocol):
    """Does a plan's stages, each after its inputs."""

    @property
    def place(self) -> Place:
        """How each stage is run; of several GPUs, on the first."""

    def run(
        self,
        plan: Plan,
        finished: Iterable[str],
        listener: StageListener,
        stopping: Callable[[], bool],
    ) -> Outcome:
        """Do the stages that are not finished. A failed one takes only those with it that need it;
        an input that turns out to be damaged is made again, and then what would have read it."""


def beyond_mending(damaged: str, reason: str) -> str:
    """Why a stage fails whose input cannot be made again, or was, and is damaged once more."""
    return f"its input {damaged} is damaged in the store, {reason}; check the disk"
