"""A backbone to which happens what is planned for a member of a team, once each."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, ClassVar

import torch
import toys
from torch import Tensor, nn

from fw.core.types import ConditionSpec

PLAN = "FW_TEST_FAULTS"
"""Names a folder of empty files; each is `RANK WHEN CALL WHAT`."""


class Doomed(toys.Linear):
    """Meets its fate at a call of its network."""

    name: ClassVar[str] = "doomed"

    def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
        return DoomedNetwork(condition)


class DoomedNetwork(toys.LinearNetwork):
    def __init__(self, spec: ConditionSpec | None):
        super().__init__(spec)
        self.calls = {"training": 0, "sampling": 0}

    def forward(self, x: Tensor, *args: Any, **more: Any) -> Tensor:
        when = "training" if self.training else "sampling"
        self.calls[when] += 1
        meet(when, self.calls[when])
        return super().forward(x, *args, **more)


def meet(when: str, call: int) -> None:
    folder, rank = os.environ.get(PLAN), os.environ.get("RANK")
    for fate in Path(folder).glob(f"{rank} {when} {call} *") if folder else ():
        fate.unlink()
        match fate.name.rpartition(" ")[2]:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(3600)
            case "raise":
                raise ValueError("the wheel came off")
            case "memory":
                torch.empty(2**60, dtype=torch.uint8)
