"""Stop work in the middle, as a run does: what continues afterwards has to come to the same end."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fw.core.errors import Interrupted
from fw.core.job import Job
from fw.core.testing.global_state import ambient

Result = TypeVar("Result")


@dataclass
class Stop:
    """A job's `stopping`: it counts its calls, and says yes from the `at`-th on."""

    at: float = math.inf
    times: int = 0

    def __call__(self) -> bool:
        self.times += 1
        return self.times >= self.at


def resumed(call: Callable[[Job], Result], seed: int, times: int) -> Result:
    """What the call returns after it was stopped half-way; `times` is how often it checks
    whether to stop."""
    with ambient(0), tempfile.TemporaryDirectory() as folder:
        with contextlib.suppress(Interrupted):
            call(Job(Path(folder), seed=seed, stopping=Stop(at=times // 2 + 1)))
            raise AssertionError(
                "it goes on when job.steps or job.track stops it: let Interrupted out"
            )
        return call(Job(Path(folder), seed=seed))
