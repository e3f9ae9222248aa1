"""What a message has to say, without its sentence: the place first, then names and remedies."""

from __future__ import annotations

import re


def says(message: str, parts: str) -> bool:
    """Whether the message begins with the first part and holds the others after it, in order.

    `parts` are written `place ... name ... remedy`.
    A part ends where a word does, so that `train` is not said by `trainer`.
    """
    return bool(
        re.match(".*?".join(bounded(part) for part in parts.split(" ... ")), message, re.DOTALL)
    )


def all_say(messages: list[str], *wanted: str) -> bool:
    """Whether each of the wanted is said by a message of its own, and there are no others."""
    heard = [[message for message in messages if says(message, parts)] for parts in wanted]
    return len(messages) == len(wanted) and sorted(messages) == sorted(
        message for each in heard for message in each
    )


def bounded(part: str) -> str:
    return re.escape(part) + (r"(?!\w)" if part[-1:].isalnum() else "")
