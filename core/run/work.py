"""The work on one stage in one process, alone or as a member of a team."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from fw.core.job import Job, Reporter
from fw.core.machine.isolation import stock_state
from fw.core.machine.leases import Right
from fw.core.machine.team import Team
from fw.core.run.place import Place
from fw.core.stages.base import Stage

ALONE = Team()


@dataclass(frozen=True)
class Worked:
    """What is to be noted of the work."""

    seconds: float
    warnings: tuple[str, ...]


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
    job = Job(
        folder=folder,
        seed=stage.seed or 0,
        device=torch.device(place.device),
        reporter=reporter,
        checkpoint_seconds=place.checkpoint_seconds,
        batch=place.batch,
        stopping=stopping,
        holding=right.check,
        team=team,
    )
    with stock_state(job.seed, job.device, place.threads):
        stage.run(job, lambda source: product(source.id))
    job.finish()
    return Worked(job.seconds, tuple(job.warnings))
