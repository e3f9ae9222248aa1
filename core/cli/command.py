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
        if not ctx.resilient_parsing:
            refuse_repeated(self, ctx, args)
        return super().parse_args(ctx, args)


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
