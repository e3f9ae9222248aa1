"""Standard output and standard error that never end a run: what nobody can read is dropped, what a terminal cannot
show is replaced.

A pipe whose reader has gone (`| head`), a closed descriptor (`2>&-`), a full disk or a lost terminal say nothing about
the work, which goes on. It is seen to below Python's text streams, so it holds for whoever writes to them: rich, the
logging of libraries, Python itself when it flushes at the end.
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
    """A file descriptor that takes every byte, and loses those that it cannot hand on."""

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
            except BlockingIOError:  # whoever shares the pipe may have made it so; wait for the reader
                select.select([], [self.number], [])
            except OSError:
                return memoryview(data).nbytes


def replaced(error: UnicodeError) -> tuple[bytes, int]:
    """A question mark for each character that the encoding lacks; the bytes of a file's name as
    they are."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = map(ord, error.object[error.start : error.end])
    return bytes(letter - 0xDC00 if 0xDC80 <= letter <= 0xDCFF else ord("?") for letter in letters), error.end


codecs.register_error(REPLACE, replaced)


def sturdy() -> None:
    """Make standard output and standard error of this process, and what its children inherit, so."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        fill(number)
        if number > 0 and not isinstance(getattr(getattr(sys, name), "buffer", None), Sturdy):
            setattr(sys, name, stream(number, f"<{name}>", getattr(sys, name)))


class Sturdy(io.BufferedWriter):
    """The bytes of a stream that was made sturdy."""


def stream(number: int, name: str, before: TextIO | None) -> TextIO:
    """A text stream that writes to the descriptor as the one before did; `None` stands for one that
    was closed."""
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


def fill(number: int) -> None:
    """Open a standard descriptor that is closed, or the next file to be opened would get its
    number, and the output."""
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)
        os.set_inheritable(number, True)
