"""Messages on a terminal."""

from __future__ import annotations

from rich.console import Console

from fw.core.messages.escaping import entry
from fw.core.messages.secrets import redact


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print a message as one entry, without secrets or commands to terminals; rich neither folds
    nor colours it."""
    console.print(entry(redact(text)), style=style, markup=False, highlight=False, soft_wrap=True)
