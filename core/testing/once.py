"""What takes long is done once per component: its clauses share it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


def once(function: Callable[[Any], Result]) -> Callable[[Any], Result]:
    """The function, which remembers what it returned for the component that it was last asked about."""
    last: list[tuple[Any, Result]] = []

    @functools.wraps(function)
    def remembering(component: Any) -> Result:
        if not last or last[0][0] is not component:
            last[:] = [(component, function(component))]
        return last[0][1]

    return remembering
