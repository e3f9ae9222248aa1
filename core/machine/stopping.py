"""The first Ctrl-C, SIGTERM or loss of the terminal asks a run to stop: stages checkpoint and end.

A second Ctrl-C ends it abruptly. What has to be whole, such as a tracker's transaction, is done in
another thread, which no signal interrupts.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from multiprocessing import resource_tracker

POLITE = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""The signals that ask to stop. Windows has no SIGHUP."""


def shelter_resource_tracker() -> None:
    """Start the process in which Python counts what worker processes share, so that it ignores
    SIGHUP.

    Python makes it ignore SIGINT and SIGTERM only. A terminal that closes would end it, and its
    successor prints tracebacks. A signal that is blocked here is blocked in the child, too.
    """
    if os.name == "posix":
        with deaf():
            resource_tracker.ensure_running()


@contextlib.contextmanager
def deaf(numbers: Iterable[signal.Signals] = POLITE) -> Iterator[None]:
    """Processes that are started meanwhile do not get the signals. In this process the signals
    wait."""
    if os.name != "posix":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Stopping:
    """Whether a run was asked to stop."""

    def __init__(self) -> None:
        self._requested = threading.Event()

    def __call__(self) -> bool:
        return self._requested.is_set()

    def handle(self, number: int, frame: object) -> None:
        """The handler of the signals."""
        if not self._requested.is_set() or number != signal.SIGINT:
            self._requested.set()
        else:
            raise KeyboardInterrupt


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stopping]:
    """Listen to the signals, in the main thread; one that `nohup` switched off stays off."""
    stopping = Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    numbers = [
        each
        for each in POLITE
        if each == signal.SIGINT or signal.getsignal(each) is not signal.SIG_IGN
    ]
    before = {number: signal.signal(number, stopping.handle) for number in numbers}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
