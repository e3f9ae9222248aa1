"""The folder of what may be forgotten: facts that are cheap to keep and slow to find out again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(given: Path | None = None) -> Path:
    """`given`, $FW_CACHE_DIR or ~/.cache/fw."""
    return (given or Path(os.environ.get("FW_CACHE_DIR") or "~/.cache/fw")).expanduser().absolute()
