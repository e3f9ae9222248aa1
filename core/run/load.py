"""What the machine does while stages run, measured beside them, for a tracker that shows it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

import torch

from fw.core.run.calls import Series

EVERY = 10.0
"""Seconds between two measurements; more once a run takes long, so that there are never many."""

SHARE = 200
"""A measurement is taken after a two hundredth of the time so far: a thousand in a day."""


class Load:
    """A thread that measures, and says it of the run and of the arms whose stages are running."""

    def __init__(self, say: Callable[[Series], None], arms: Callable[[], Iterable[str]]):
        self.say = say
        self.arms = arms
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._work, name="load", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def end(self) -> None:
        """No more is said after this."""
        self.ended.set()
        if self.thread.is_alive():
            self.thread.join()

    def _work(self) -> None:
        began = time.monotonic()
        while not self.ended.wait(max(EVERY, (time.monotonic() - began) / SHARE)):
            measured = {"step": float(int(time.time())), **measure()}
            for arm in (None, *self.arms()):
                self.say(Series(arm, [measured]))


def measure() -> dict[str, float]:
    """Shares in percent and sizes in MB, by MLflow's own names. Nothing without psutil."""
    values: dict[str, float] = {}
    try:
        import psutil
    except ImportError:
        return values
    memory = psutil.virtual_memory()
    values["system/cpu_utilization_percentage"] = psutil.cpu_percent()
    values["system/system_memory_usage_megabytes"] = memory.used / 1e6
    values["system/system_memory_usage_percentage"] = memory.percent
    if torch.cuda.is_initialized():  # in this process; workers have their own
        for device in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(device)
            values[f"system/gpu_{device}_memory_usage_megabytes"] = (total - free) / 1e6
            values[f"system/gpu_{device}_memory_usage_percentage"] = 100 * (1 - free / total)
    return values
