"""How the words of a command line are read: an option that takes one value is given once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import typer.core


class Command(typer.core.TyperCommand):
    """A command that refuses what typer would drop silently: of an option that takes one value, all
    but the last. Its help is text, in which brackets are brackets."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for param in self.params:
            help_ = getattr(param, "help", None)
            if help_:
                param.help = help_.replace("[", r"\[")  # type: ignore[attr-defined]  # not for rich

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # a shell completes the next word
            return super().parse_args(ctx, without_unfinished(self, args))
        refuse_repeated(self, ctx, args)
        return super().parse_args(ctx, args)


def without_unfinished(command: typer.core.TyperCommand, args: list[str]) -> list[str]:
    """The words without an option at their end whose value is still to come: typer would read none
    of them."""
    options = [each for each in command.params if isinstance(each, typer.core.TyperOption)]
    waiting = [name for each in options if not each.is_flag for name in each.opts]
    return args[:-1] if args and args[-1] in waiting else args


def refuse_repeated(command: typer.core.TyperCommand, ctx: Any, args: list[str]) -> None:
    """A usage error if an option stands there twice of which one value would count."""
    _, _, order = command.make_parser(ctx).parse_args(args=list(args))
    for option, count in Counter(order).items():
        if count > 1 and isinstance(option, typer.core.TyperOption) and takes_one(option):
            name = "/".join([option.opts[-1], *option.secondary_opts])
            ctx.fail(f"{name} is given {count} times, and takes one value: name it once")


def takes_one(option: typer.core.TyperOption) -> bool:
    """Whether what is written twice may contradict itself."""
    return not option.multiple and (not option.is_flag or bool(option.secondary_opts))
