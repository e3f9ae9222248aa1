"""What files say is found out once in a command: what lies in a folder, what a component's identity
is.

Within `one_look` such facts are kept, so that a plan of hundreds of stages reads a folder once, and
all of it is about the same files. They belong to the command and end with it: the next one, in the
same process or in another, looks again. Outside of `one_look` nothing is kept.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")

facts: ContextVar[dict[Hashable, Any] | None] = ContextVar("facts", default=None)
"""What the present look has found out so far; None outside of one."""


@contextmanager
def one_look() -> Iterator[None]:
    """What is found out in here is found out once. One within another begins anew."""
    token = facts.set({})
    try:
        yield
    finally:
        facts.reset(token)


def look_again() -> None:
    """Forget what was found out: for whoever has changed files, as a download does."""
    if (known := facts.get()) is not None:
        known.clear()


def once_in_a_look(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """The function, called once in a look with the same arguments; nobody may change its result."""

    @functools.wraps(function)
    def remembering(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        key = (function, args, tuple(sorted(kwargs.items())))
        return found_once(key, lambda: function(*args, **kwargs))

    return remembering


def found_once(key: Hashable, find: Callable[[], Result]) -> Result:
    """What `find` finds, which is called once in a look for the key."""
    known = facts.get()
    if known is None:
        return find()
    if key not in known:
        known[key] = find()
    result: Result = known[key]
    return result
