"""How a command answers: on standard output, a line at a time or in a table."""

from __future__ import annotations

from typing import Any

from fw.core.messages.escaping import visible


def answer(text: object) -> None:
    """Print one line of a command's answer."""
    print(visible(text))


def wide_console() -> Any:
    """Standard output; not folded to 80 columns when it is no terminal."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=200)
