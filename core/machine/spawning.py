"""Worker processes that do not execute the user's script.

Python imports the main script in every process that it spawns, so that a script without
`if __name__ == "__main__"` would start its run again in each of them. Workers of fw need nothing of
it: components come from plugins.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def without_script() -> Iterator[None]:
    """Processes that are spawned meanwhile import no main script."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script
