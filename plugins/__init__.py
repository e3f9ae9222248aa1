"""The built-in components; they enter through the same hook as anybody's plugin."""

from collections.abc import Iterable

from fw.registry import Component, hookimpl


@hookimpl
def fw_components() -> Iterable[type[Component]]:
    return ()
