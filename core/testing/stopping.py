"""Asked to stop in the middle, as a run is: what continues afterwards has to come to the same end."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Stop:
    """A job's `stopping`: it counts how often it is asked, and says yes from the `at`-th time on."""

    at: float = math.inf
    times: int = 0

    def __call__(self) -> bool:
        self.times += 1
        return self.times >= self.at
