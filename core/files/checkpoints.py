"""Checkpoints that cost a training little: how often they are written, and writing them beside it.

What a training changes is copied, which takes the time of a step, and a thread writes the copy to
the disk while the training goes on. A crash in between loses steps and nothing else.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

SHARE = 0.01
"""Of the time that a training takes, what its checkpoints may cost."""

THREAD = "beside a training"
"""The name of a thread that writes."""


class Pace:
    """When a checkpoint is due: `seconds` after the last, and so late that what it cost is at most
    `SHARE` of the time in between. With 0 seconds one is due after every step, whatever it costs.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic):
        self.seconds = seconds
        self.clock = clock
        self.last = self.logged = clock()
        self.cost = 0.0
        """Of the last checkpoint, in seconds."""

    @property
    def every_step(self) -> bool:
        return self.seconds == 0

    @property
    def due(self) -> bool:
        return self.clock() - self.last >= max(self.seconds, self.cost / SHARE)

    @property
    def log_due(self) -> bool:
        """Whether the log should be written, however late the next checkpoint is."""
        return self.clock() - max(self.last, self.logged) >= self.seconds

    def saved(self) -> None:
        """A checkpoint was taken just now."""
        self.last, self.cost = self.clock(), 0.0

    def wrote_log(self) -> None:
        self.logged = self.clock()

    def costs(self, seconds: float) -> None:
        """Count these seconds among what the last checkpoint cost."""
        self.cost += seconds


class Beside:
    """Does one piece of work at a time in a thread. Its failure is raised by whoever asks next."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._seconds = 0.0

    def start(self, work: Callable[[], object], counted: bool = True) -> None:
        """Do this beside what goes on; waits for what is under way. `counted`: in what was
        `spent`."""
        self.wait()
        self._thread = threading.Thread(
            target=self._do, args=(work, counted), name=THREAD, daemon=True
        )
        self._thread.start()

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Return when nothing is under way."""
        self.leave()
        if (failure := self._failure) is not None:
            self._failure = None
            raise failure

    def leave(self) -> None:
        """The same where something else has failed already, which matters more."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def spent(self) -> float:
        """The seconds of a core that were spent since this was asked last; raises what failed."""
        if self.busy:
            return 0.0
        self.wait()
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _do(self, work: Callable[[], object], counted: bool) -> None:
        began = time.thread_time()
        try:
            work()
        except BaseException as error:  # raised where somebody can hear it
            self._failure = error
        if counted:
            self._seconds += time.thread_time() - began


def copied(state: Any) -> tuple[Any, Callable[[], None]]:
    """A copy on the CPU of tensors in mappings and lists, which later steps do not change; and what
    to call before it is read.

    Copies from a GPU are in line behind the steps that it has been given; nobody waits for them
    until then.
    """
    twin = twin_of(state)
    if not torch.cuda.is_initialized():
        return twin, lambda: None
    tensors = [each for each in tree_leaves(state) if isinstance(each, Tensor)]
    devices = {tensor.device for tensor in tensors if tensor.is_cuda}
    events = [torch.cuda.current_stream(device).record_event() for device in devices]

    def arrived() -> None:
        for event in events:
            event.synchronize()

    return twin, arrived


def twin_of(value: Any) -> Any:
    if isinstance(value, Tensor):
        if value.is_cuda:
            host = torch.empty_like(value, device="cpu", pin_memory=True)
            return host.copy_(value.detach(), non_blocking=True)
        return value.detach().clone()
    if isinstance(value, dict):
        twin: Any = copy.copy(value)
        for key, entry in value.items():
            twin[key] = twin_of(entry)
        if hasattr(value, "_metadata"):  # versions of modules in their state dicts
            twin._metadata = value._metadata
        return twin
    if type(value) in (list, tuple):
        return type(value)(map(twin_of, value))
    return copy.deepcopy(value)
