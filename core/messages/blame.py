"""Which component an exception came from: the innermost one in its traceback."""

from __future__ import annotations

import traceback

from fw.registry import Component
from fw.registry.errors import in_one_line


def blamed(error: BaseException) -> str | None:
    """`guidance 'sharpen' raised KeyError: 'x' (sharpen.py:12)`, or None if no component was at
    work."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        own = frame.f_locals.get("self")
        if isinstance(own, Component):
            return (
                f"{own.kind} '{own.name}' raised {in_one_line(error)} "
                f"({frame.f_code.co_filename}:{line})"
            )
    return None
