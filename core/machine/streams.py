"""Standard output and standard error that never end a run: output that nobody can read is dropped,
and characters that a terminal cannot show are replaced.

A pipe whose reader has gone (`| head`), a closed descriptor (`2>&-`), a full disk or a closed
terminal are no fault of the work, which goes on. This is done below Python's text streams, so it
holds for all that write to them: rich, the logging of libraries, and Python itself when it flushes
at the end.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import select
import sys
from typing import Any, TextIO

REPLACE = "fw.replace"


class Descriptor(io.RawIOBase):
    """A file descriptor that takes every byte, and drops those that it cannot write."""

    def __init__(self, number: int, name: str):
        self.number = number
        self.name = name

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.number

    def isatty(self) -> bool:
        return os.isatty(self.number)

    def write(self, data: Any) -> int:
        while True:
            try:
                return os.write(self.number, data)
            except (
                BlockingIOError
            ):  # whoever shares the pipe may have made it so; wait for the reader
                select.select([], [self.number], [])
            except OSError:
                return memoryview(data).nbytes


def replaced(error: UnicodeError) -> tuple[bytes, int]:
    """A question mark for each character that the encoding lacks. Undecodable bytes of a file's
    name are written as they are."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = map(ord, error.object[error.start : error.end])
    return bytes(
        letter - 0xDC00 if 0xDC80 <= letter <= 0xDCFF else ord("?") for letter in letters
    ), error.end


codecs.register_error(REPLACE, replaced)


def sturdy() -> None:
    """Make the standard output and standard error of this process so, and those that children
    inherit."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        fill(number)
        if number > 0 and not isinstance(getattr(getattr(sys, name), "buffer", None), Sturdy):
            setattr(sys, name, stream(number, f"<{name}>", getattr(sys, name)))


class Sturdy(io.BufferedWriter):
    """The bytes of a stream that was made sturdy."""


def stream(number: int, name: str, before: TextIO | None) -> TextIO:
    """A text stream that writes to the descriptor with the settings of `before`; None if that was
    closed."""
    if before is not None:
        with contextlib.suppress(OSError, ValueError):
            before.flush()
    return io.TextIOWrapper(
        Sturdy(Descriptor(number, name)),
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors=REPLACE,
        line_buffering=number == 2 or os.isatty(number),
        write_through=number == 2,
    )


def unread(number: int) -> bool:
    """Whether what is written to a descriptor reaches nobody any more: of a command that only
    talks, and would do so forever."""
    poll = select.poll()
    poll.register(number, 0)
    return any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))


def fill(number: int) -> None:
    """Open a standard descriptor that is closed. Else the next file to be opened would get its
    number, and with it the output."""
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)
        os.set_inheritable(number, True)
