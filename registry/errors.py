"""What can go wrong with plugins, and how an exception is written on one line."""

import textwrap


class UnknownComponent(LookupError):
    """No healthy plugin provides the component that a recipe names."""


class UnfitPlugin(Exception):
    """A plugin does not keep to the contract; the message is one line."""


def in_one_line(error: BaseException) -> str:
    reason = shortened(error)
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


def shortened(text: object) -> str:
    """The text on one line."""
    return textwrap.shorten(str(text), width=300, placeholder=" ...")
