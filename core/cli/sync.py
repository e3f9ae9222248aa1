"""The command line of `fw sync`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fw.core.cli import completing
from fw.core.cli.answers import answer
from fw.core.cli.arguments import DEFAULT_OUT, Out, Plugins
from fw.core.cli.beginning import add_plugins
from fw.core.errors import FwError, StageFailed


def sync(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="run folders [default: all in --out]",
            metavar="RUN",
            autocompletion=completing.runs,
        ),
    ] = None,
    out: Out = DEFAULT_OUT,
    plugin: Plugins = None,
) -> None:
    """Log what a run's tracker missed while its server was away; it may be repeated."""
    from rich.console import Console

    from fw.core.run.finished import FinishedRun
    from fw.core.run.sync import journals
    from fw.core.run.sync import sync as sync_run

    add_plugins(plugin)
    named = [FinishedRun(run) for run in runs or ()]
    for each in named:
        each.check()
    folders = [each.folder for each in named] or list(journals(out.absolute()))
    failures = []
    for folder in folders:
        try:
            news = sync_run(folder, Console(stderr=True))
        except FwError as error:
            failures.append(f"{folder}: {error}")
        else:
            answer(f"{folder}: {'logged what was missing' if news else 'nothing was missing'}")
    if failures:
        raise StageFailed("\n".join(failures))
    if not folders:
        answer(f"{out}: no run in there is logged to a tracker")
