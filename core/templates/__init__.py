"""The shortest complete plugin of every kind: what `fw new-plugin` copies. None of them is
registered as a built-in."""

from __future__ import annotations

from importlib.resources import files


def names() -> list[str]:
    """The templates: those of the kinds, `joint` and `rule`."""
    entries = (entry.name for entry in files(__name__).iterdir())
    return sorted(
        name.removesuffix(".py")
        for name in entries
        if name.endswith(".py") and not name.startswith("_")
    )
