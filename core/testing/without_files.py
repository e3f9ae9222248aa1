"""A component on a machine without its files: no path leads anywhere, and nothing can be loaded."""

from __future__ import annotations

import types
from pathlib import PurePath
from typing import Any, TypeVar

from fw.registry import Component

AnyComponent = TypeVar("AnyComponent", bound=Component)


def without_files(component: AnyComponent, method: str) -> AnyComponent:
    """The component without its files, whose `method` may not be called."""

    def refuse(*arguments: Any) -> Any:
        raise AssertionError(f"{method}() is called for it")

    kind = type(component)
    bare = types.new_class(
        kind.__name__, (kind,), exec_body=lambda body: body.update({method: refuse})
    )
    fields: dict[str, Any] = {
        name: value / "absent" if isinstance(value, PurePath) else value
        for name, value in component
    }
    return bare.model_construct(**fields)  # type: ignore[attr-defined]
