"""The traceback that a try which failed leaves in the stage's folder, for whoever wrote the code
that raised."""

from __future__ import annotations

import contextlib
from pathlib import Path

TRACE = "traceback.txt"


def leave(folder: Path, trace: str) -> str:
    """Write it, and say where: the end of a sentence. Nothing, where it cannot be written: the disk
    may be full, or the folder gone."""
    path = folder / TRACE
    with contextlib.suppress(OSError):
        path.write_text(trace, encoding="utf-8", errors="backslashreplace")
        return f" (traceback in {path})"
    return ""
