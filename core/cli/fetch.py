"""The command line of `fw fetch`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fw.core.cli.answers import answer
from fw.core.cli.arguments import Plugins, RecipePath, Sets
from fw.core.cli.beginning import add_plugins
from fw.core.errors import FwError


def fetch(
    recipe: RecipePath,
    set_: Sets = None,
    plugin: Plugins = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="fetch without asking")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="list what is missing, its size and place, and stop")
    ] = False,
) -> None:
    """Download the data and weights that a recipe names and this machine lacks; sums are checked.

    No other command downloads anything."""
    from fw.core.machine.offline import go_online

    go_online()

    from rich.console import Console
    from rich.filesize import decimal

    from fw.core.commands.fetch import bring, needs, still_lacking
    from fw.core.messages.secrets import redact
    from fw.core.plan.assembly import plan
    from fw.core.recipe.loading import load

    add_plugins(plugin)
    planned = plan(load(recipe, set_ or ()))
    wanted = needs(planned)
    for line in wanted.lines():
        answer(redact(line))
    problems = wanted.problems
    if dry_run:
        for problem in problems:
            answer(redact(f"{'problem':8} {problem}"))
    if fetchable := wanted.fetchable:
        size = decimal(sum(need.size or 0 for need in fetchable))
        unknown = " and more" if any(need.size is None for need in fetchable) else ""
        answer(f"{len(fetchable)} to fetch, {size}{unknown} in all")
        if dry_run:
            return
        if not yes:
            agreed()
        problems += bring(fetchable, Console(stderr=True))
    elif dry_run and (wanted.missing or wanted.by_hand):
        return
    if problems:
        raise type(problems[0])("\n".join(dict.fromkeys(map(str, problems))))
    if lacking := still_lacking(planned):
        raise FwError("\n".join(lacking))
    if fetchable:
        answer(f"all that {recipe} needs from outside is here now")
    else:
        answer(f"nothing to fetch: all that {recipe} needs from outside is here")


def agreed() -> None:
    """FwError unless the user agrees; without a terminal, nobody can be asked."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise FwError("nothing was fetched, because nobody can be asked here: add --yes")
    if not typer.confirm("fetch?"):
        raise FwError("nothing was fetched")
