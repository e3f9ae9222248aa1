"""Faulty components as variants of honest ones, and whether the kit names the fault."""

from __future__ import annotations

import inspect
import sys
from typing import Any, ClassVar

from fw.core.testing import Clause, violations
from fw.core.testing.contract import sentence
from fw.registry import Component


def variants(base: type, member: str, **faults: Any) -> None:
    """A class per fault, of its name, in the module of `base`, where another process finds it."""
    for name, value in faults.items():
        setattr(sys.modules[base.__module__], name, variant(base, name, member, value))


def variant(base: type, name: str, member: str, value: Any) -> type:
    """`base` with another method, property or class variable."""
    body: dict[str, Any] = {
        "__module__": base.__module__,
        "__qualname__": name,
        "__doc__": f"Another {member}.",
    }
    if not inspect.isfunction(value):
        body |= {"__annotations__": {member: ClassVar[Any]}}
    elif isinstance(inspect.getattr_static(base, member, None), property):
        value = property(value)
    return type(base)(name, (base,), {**body, member: value})


def assert_named(component: Component, clause: Clause, reason: str) -> None:
    """AssertionError unless the kit says in one line that it breaks the clause, and why."""
    found = list(violations(component))
    assert any(line.startswith(f"{sentence(clause)}: ") and reason in line for line in found), found
    assert all("\n" not in line for line in found)
