"""How fast something is fetched, in a line now and then, for where there is no terminal."""

from __future__ import annotations

import time

from rich.filesize import decimal

EVERY = 10.0
"""Seconds between lines."""


class Pace:
    """Counts bytes, of `total` if that is known."""

    def __init__(self, total: int | None):
        self.total = total
        self.done = 0
        self.began = self.said = time.monotonic()

    def line(self, count: int) -> str | None:
        """With so many bytes more: how far it is, the rate and the time left; None if that was said
        a moment ago."""
        self.done += count
        now = time.monotonic()
        if now - self.said < EVERY:
            return None
        self.said = now
        rate = self.done / (now - self.began)
        if not self.total or rate <= 0:
            return f"{decimal(self.done)}, {decimal(int(rate))}/s"
        left = max(0, self.total - self.done) / rate
        return (
            f"{decimal(self.done)} of {decimal(self.total)}, {decimal(int(rate))}/s, {left:.0f} s "
            "left"
        )
