"""How much memory a process takes: pages that no file stands behind, which the system cannot take
back. Maps of files count for nothing here, however large they are."""

from __future__ import annotations

import contextlib
import ctypes
import re
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import torch

from fw.core.errors import FwError

EVERY = 0.05
"""Seconds between two measurements."""

STATUS = Path("/proc/self/status")

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


class Peak(NamedTuple):
    """The most bytes that a process had: `anonymous`, those that no file stands behind, and
    `device`, those on a GPU; None where it is not known."""

    anonymous: int | None
    device: int | None

    def facts(self) -> dict[str, int]:
        return {name: size for name, size in self._asdict().items() if size is not None}


class Watch:
    """Measures, beside what is done in its context. `passed` once that takes more than `bound`
    bytes."""

    def __init__(self, device: torch.device, bound: int | None = None):
        self.device = device
        self.bound = bound
        give_back()
        self.began = anonymous()
        self.anonymous = self.began
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="memory", daemon=True)

    def __enter__(self) -> Self:
        if self.device.type == "cuda":
            torch.cuda.init()  # before, its allocator has no statistics
            torch.cuda.reset_peak_memory_stats(self.device)
        if self.anonymous is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def passed(self) -> bool:
        return self.bound is not None and (self.anonymous or 0) > self.bound

    @property
    def peak(self) -> Peak:
        """So far."""
        if self.device.type == "cuda":
            return Peak(self.anonymous, torch.cuda.max_memory_allocated(self.device))
        return Peak(self.anonymous, None)

    def _work(self) -> None:
        while not self._ended.wait(EVERY):
            self._measure()
        self._measure()

    def _measure(self) -> None:
        size = anonymous() or 0
        if self.bound is not None and size > self.bound:
            give_back()  # what is free counts for nothing
            size = anonymous() or 0
        self.anonymous = max(self.anonymous or 0, size)


def anonymous() -> int | None:
    """Bytes of this process that no file stands behind; elsewhere than on Linux, and where that is
    not known, the most that were resident so far."""
    try:
        status = STATUS.read_text(encoding="utf-8")
        return int(status.partition("RssAnon:")[2].split()[0]) * 1024
    except (OSError, LookupError, ValueError):
        return resident()


def give_back() -> None:
    """Give the system the free memory that the C library has kept, where that is glibc: such pages
    lie between others that are in use."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def resident() -> int | None:
    """The most bytes of this process that were in memory, maps of files included; None on
    Windows."""
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def size_of(text: str) -> int:
    """Bytes of a size such as 8G, 500M or 1.5 GiB: units are powers of 1024."""
    match = SIZE.fullmatch(text.strip())
    size = 0 if match is None else int(float(match[1]) * UNITS[match[2].upper()])
    if not size:
        raise FwError(f"{text!r} is no size of memory: give a number and K, M, G or T, such as 8G")
    return size


def in_words(size: int) -> str:
    """Bytes as people write them: 1.5 GiB."""
    unit = next((each for each in "TGMK" if size >= UNITS[each]), "")
    return f"{size / UNITS[unit]:.3g} {unit}iB" if unit else f"{size} bytes"
