"""The work on one stage in one process, alone or as a member of a team."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from fw.core.errors import Interrupted, StageFailed
from fw.core.execution.place import Place
from fw.core.job import Job, Reporter
from fw.core.machine.isolation import stock_state
from fw.core.machine.leases import Right
from fw.core.machine.memory import Peak, Watch, in_words
from fw.core.machine.team import ALONE, Team
from fw.core.stages.base import Stage


@dataclass(frozen=True)
class Worked:
    """What is to be noted of the work."""

    seconds: float
    warnings: tuple[str, ...]
    peak: Peak
    """The most memory that the process took."""


def work(
    stage: Stage,
    folder: Path,
    place: Place,
    product: Callable[[str], Path],
    reporter: Reporter,
    stopping: Callable[[], bool],
    right: Right,
    team: Team = ALONE,
) -> Worked:
    """Write the stage's product into the folder, or a member's part of it. `product` gives the
    folder of a finished stage, by its id; `right` is that to work on this one."""
    memory = Watch(torch.device(place.device), place.max_memory)
    job = Job(
        folder=folder,
        seed=stage.seed or 0,
        device=torch.device(place.device),
        reporter=reporter,
        checkpoint_seconds=place.checkpoint_seconds,
        batch=place.batch,
        stopping=lambda: memory.passed or stopping(),
        holding=right.check,
        team=team,
    )
    with memory, stock_state(job.seed, job.device, place.threads):
        try:
            stage.run(job, lambda source: product(source.id))
        except Interrupted:
            if memory.passed and not stopping():
                raise StageFailed(too_much(stage, memory)) from None
            raise
    if memory.passed:
        job.say(f"{too_much(stage, memory)}; it is done all the same")
    job.finish()
    return Worked(job.seconds, tuple(job.warnings), memory.peak)


def too_much(stage: Stage, memory: Watch) -> str:
    """What to do about a stage that takes more memory than it may."""
    assert memory.bound is not None
    taken, most = in_words(memory.anonymous or 0), in_words(memory.bound)
    remedy = stage.lighter
    if (memory.began or 0) > memory.bound:
        remedy = f"it began with {in_words(memory.began or 0)}, libraries and all, so raise that"
    return f"it takes {taken} of memory, and --max-memory is {most}: {remedy}"
