"""Ctrl-C, SIGTERM and a terminal that is gone ask a run politely, once: stages checkpoint and end.

A second Ctrl-C is abrupt, but not in the middle of what has to be whole, such as a tracker's transaction.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker

POLITE = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What asks to stop. Windows has no SIGHUP."""


def shelter_resource_tracker() -> None:
    """Start the process in which Python keeps count of what worker processes share, deaf to SIGHUP.

    Python makes it deaf to SIGINT and SIGTERM only, so a terminal that goes would take it away, and
    its successor prints tracebacks. A signal that is blocked here is blocked in the child, too.
    """
    if os.name == "posix":
        with deaf():
            resource_tracker.ensure_running()


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Processes that are started meanwhile do not hear the signals; here they wait."""
    if os.name != "posix":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, POLITE)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Stopping:
    """Whether a run was asked to stop."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._shields = 0
        self._abrupt = 0
        """How often an abrupt end was asked for within a shield."""

    def __call__(self) -> bool:
        return self._asked.is_set()

    def ask(self, number: int, frame: object) -> None:
        """The handler of the signals."""
        if not self._asked.is_set() or number != signal.SIGINT:
            self._asked.set()
        elif self._shields and not self._abrupt:
            self._abrupt += 1
        else:  # also the third time within a shield: a server may never answer
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def shield(self) -> Iterator[None]:
        """An abrupt end waits until this is left."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
        if self._abrupt and not self._shields:
            self._abrupt = 0
            raise KeyboardInterrupt


@contextlib.contextmanager
def asked_to_stop() -> Iterator[Stopping]:
    """Listen to the signals, in the main thread; what `nohup` has switched off stays so."""
    stopping = Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    heard = [number for number in POLITE if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stopping.ask) for number in heard}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
