"""The command line of `fw recipes`."""

from __future__ import annotations

from fw.core.cli.answers import answer


def recipes() -> None:
    """List the recipes that come with fw."""
    from importlib.resources import files

    for entry in sorted(files("fw.recipes").iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".yaml"):
            first = entry.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
            answer(entry)
            answer(f"    {first}")
