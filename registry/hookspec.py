"""The one hook that a plugin implements."""

from collections.abc import Iterable

import pluggy

from fw.registry.component import Component

PROJECT = "fw"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def fw_components() -> Iterable[type[Component]]:
    """Return the component classes that this plugin brings."""
    raise NotImplementedError
