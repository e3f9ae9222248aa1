"""Do what takes long once per component, so that its clauses share the result."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


def once(function: Callable[[Any], Result]) -> Callable[[Any], Result]:
    """The function, which remembers its result for the last component that it was called with."""
    last: list[tuple[Any, Result]] = []

    @functools.wraps(function)
    def remembering(component: Any) -> Result:
        if not last or last[0][0] is not component:
            last[:] = [(component, function(component))]
        return last[0][1]

    return remembering
