"""A run is asked politely once, by Ctrl-C, SIGTERM or SIGHUP, and nothing is cut off in the
middle of a transaction."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from fw.core.machine.stopping import POLITE, stop_on_signals


@pytest.fixture(autouse=True)
def as_in_a_terminal() -> Iterator[None]:
    """The tests may run under nohup, or in the background."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in POLITE}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", POLITE)
def test_each_signal_asks_and_afterwards_the_handlers_are_back(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in POLITE]
    with stop_on_signals() as stopping:
        assert not stopping()
        os.kill(os.getpid(), number)
        assert stopping()
    assert [signal.getsignal(each) for each in POLITE] == before


SHELTERED = """
import os, signal, time
from multiprocessing import resource_tracker
from fw.core.machine.stopping import shelter_resource_tracker
shelter_resource_tracker()
tracker = resource_tracker._resource_tracker._pid
os.kill(tracker, signal.SIGHUP)
time.sleep(1)
print(os.waitpid(tracker, os.WNOHANG), signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""


def test_a_hangup_leaves_the_process_that_counts_shared_things_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHELTERED], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("(0, 0) set()\n", "")


def test_a_hangup_that_nohup_has_switched_off_asks_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as stopping:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stopping()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_interrupt_is_abrupt_and_a_second_request_of_another_kind_is_not() -> None:
    with stop_on_signals() as stopping, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
        assert stopping()
        signal.raise_signal(signal.SIGINT)


def test_outside_the_main_thread_nothing_is_heard_and_nothing_breaks() -> None:
    heard: list[bool] = []

    def elsewhere() -> None:
        with stop_on_signals() as stopping:
            heard.append(stopping())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert heard == [False]
