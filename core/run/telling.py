"""A tracker is told of a run beside the work, in a thread of its own, which nobody waits for.

What it cannot be told now stays in the journal. A server that was away is tried again every minute,
and is told everything from the beginning then: every call may be repeated. A call that fails twice
with a server that answers is left out, so that it does not keep the others.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from contextvars import copy_context

from fw.core.errors import FwError, Unreachable
from fw.core.kinds import TrackedRun
from fw.core.run.calls import PATIENCE, Call, Opened, Sources
from fw.core.run.journal import Journal, condensed

OPENING = 60.0
"""Seconds that a run waits for its tracker before it begins to work, unless that gives up."""

AGAIN = 60.0
"""Seconds between two tries to reach a server that is away."""

AWAY = (Unreachable, ConnectionError, TimeoutError)
"""Errors that may pass: a run does not end because of them."""


class Teller:
    """The thread, its calls, and what became of them."""

    def __init__(
        self,
        journal: Journal,
        opening: Callable[[Opened], TrackedRun],
        sources: Sources,
        say: Callable[[str], object],
        watching: bool = False,
    ):
        self.journal = journal
        self.opening = opening
        self.sources = sources
        self.say = say
        self.watching = watching
        """Whether the tracker shows what the machine does."""
        self.tracked: TrackedRun | None = None
        """The run as it was last opened."""
        self.failure: Exception | None = None
        """Why the tracker does not answer now."""
        self.refused: dict[str, str] = {}
        """Calls that it does not take, and why."""
        self.complete = False
        """Whether all has arrived."""
        self._calls: list[Call] = []
        self._news = threading.Condition()
        self._tried = False
        self._ending = False
        self._refusal: Exception | None = None
        """Why the run could not be opened, if that will not pass: it is not begun then."""
        self._unwritten = False
        self._since, self._patience = time.monotonic(), PATIENCE
        known = copy_context()  # of what this command has read already
        self._thread = threading.Thread(
            target=lambda: known.run(self._work), name="tracker", daemon=True
        )

    def begin(self, seconds: float | None = OPENING) -> None:
        """Start, and wait until the run is open, but not longer than so many seconds.

        Raises what opening it raises, unless that may pass.
        """
        self._thread.start()
        with self._news:
            self._news.wait_for(lambda: self._tried, seconds)
            if self._refusal is not None:
                self._ending = True
                self._news.notify_all()
                raise self._refusal

    def put(self, call: Call) -> None:
        """Have the tracker told, some time."""
        try:
            self.journal.add(call)
        except OSError as error:
            if not self._unwritten:
                self._unwritten = True
                lacking = f"{self.journal.path}: {error.strerror}; `fw sync` will lack a part"
                self.say(f"warning: {lacking}")
        self.resume([call])

    def resume(self, calls: Sequence[Call]) -> None:
        """Have the tracker told what the journal has already."""
        with self._news:
            self._calls += calls
            self._news.notify_all()

    def finish(self, hurried: bool = True) -> bool:
        """Wait until all is told, and return whether it was; `hurried` gives up on a call that
        takes longer than its patience."""
        with self._news:
            self._ending = True
            self._news.notify_all()
        began = time.monotonic()
        while self._thread.is_alive():
            self._thread.join(0.05)
            if hurried and time.monotonic() > max(began, self._since) + self._patience:
                break
        return self.complete

    def _work(self) -> None:
        suspects: set[object] = set()
        while True:
            self._expect(PATIENCE)
            try:
                self.tracked = self.opening(self._description())
            except Exception as error:
                if not self._tried and not isinstance(error, AWAY):
                    self._refuse(error)
                    return
                self._fail(error)
                if not self._rest():
                    return
                continue
            self._opened()
            failed = self._tell(self.tracked, suspects)
            if failed is None:
                return
            suspects.add(failed.topic)

    def _description(self) -> Opened:
        """What the run is opened with: all arms of all that opened it since the last arrival."""
        with self._news:
            (opened,) = condensed([call for call in self._calls if isinstance(call, Opened)])
        assert isinstance(opened, Opened)
        return opened

    def _tell(self, tracked: TrackedRun, suspects: set[object]) -> Call | None:
        """Make all calls; returns the one that failed for the first time, None at the end."""
        told = 0
        while (call := self._next(told)) is not None:
            try:
                self._expect(call.patience(self.sources))
                call.tell(tracked, self.sources)
            except Exception as error:
                if call.topic not in suspects:
                    self._fail(error)
                    return call
                self.refused[call.word] = in_words(error)
            told += 1
        if not self.refused:
            with contextlib.suppress(OSError):  # a full disk: it is told again, which may be
                self.journal.arrived()
                self.complete = True
        return None

    def _next(self, told: int) -> Call | None:
        with self._news:
            self._news.wait_for(lambda: told < len(self._calls) or self._ending)
            return self._calls[told] if told < len(self._calls) else None

    def _rest(self) -> bool:
        """Wait for a while; False if the run has ended before the last try."""
        with self._news:
            if self._ending:
                return False
            self._news.wait_for(lambda: self._ending, AGAIN)
            return True

    def _expect(self, patience: float) -> None:
        self._since, self._patience = time.monotonic(), patience

    def _opened(self) -> None:
        with self._news:
            if self.failure is not None:
                self.say("the tracker answers again; it is told what it missed")
            self.failure, self._tried = None, True
            self._news.notify_all()

    def _refuse(self, error: Exception) -> None:
        with self._news:
            self._refusal, self._tried = error, True
            self._news.notify_all()

    def _fail(self, error: Exception) -> None:
        with self._news:
            fresh, self.failure = self.failure is None, error
            self._tried = True
            self._news.notify_all()
        if fresh:
            self.say(
                f"warning: {in_words(error)}; the run goes on, and what the tracker misses is kept"
            )


def in_words(error: Exception) -> str:
    known = isinstance(error, FwError)
    return str(error) if known else f"the tracker raised {type(error).__name__}: {error}"
