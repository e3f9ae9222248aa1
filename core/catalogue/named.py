"""The names of components and kinds, read from the text of plugins' modules: importing them takes
seconds, and a shell that completes a word does not wait so long.

A name that a module makes otherwise than by writing it into its class is not among them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from fw.registry.hookspec import PROJECT

WRITTEN = re.compile(
    r"""^\s+(name|kind)\s*:\s*(?:typing\.)?ClassVar(?:\[str\])?\s*=\s*["']([\w.\-]+)["']""", re.M
)


def named(what: str, files: Iterable[Path] = ()) -> list[str]:
    """What is called `name`, or `kind`, in the classes of installed plugins and of these files."""
    found = set()
    for file in (*sources(), *files):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = file.read_text(encoding="utf-8")
            found |= {name for which, name in WRITTEN.findall(text) if which == what}
    return sorted(found)


def sources() -> Iterator[Path]:
    """The modules of installed plugins, and those of fw's kinds."""
    modules = ["fw.core.kinds", *(entry.module for entry in entry_points(group=PROJECT))]
    for module in modules:
        with contextlib.suppress(Exception):  # a broken plugin names nothing
            spec = find_spec(module)
            origin = Path(spec.origin) if spec is not None and spec.origin else None
            if origin is not None and spec is not None and spec.submodule_search_locations:
                yield from origin.parent.rglob("*.py")
            elif origin is not None:
                yield origin
