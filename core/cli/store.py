"""The command line of `fw store`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fw.core.cli import completing
from fw.core.cli.answers import answer, wide_console
from fw.core.cli.arguments import DEFAULT_OUT, Plugins
from fw.core.cli.beginning import add_plugins
from fw.core.errors import FwError


def store(
    runs: Annotated[
        Path,
        typer.Argument(
            help="a runs folder", metavar="RUNS", autocompletion=completing.runs_folders
        ),
    ] = DEFAULT_OUT,
    plugin: Plugins = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="remove products that no run uses; asks first")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    migrate: Annotated[
        bool, typer.Option("--migrate", help="bring what an earlier fw has written up to date")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="answer with one JSON document")] = False,
) -> None:
    """Say what takes the room in a runs folder, by run and kind of stage, and what no run uses."""
    import json

    from fw.core.commands import store
    from fw.core.store.migration import migrate as take_steps
    from fw.core.store.store import Store

    if prune and migrate:
        raise FwError("--prune and --migrate: name one")
    if (yes and not prune) or (as_json and (prune or migrate)):
        raise FwError("--yes is about --prune, and --json about neither --prune nor --migrate")
    add_plugins(plugin)
    if migrate:
        sentences = list(take_steps(Store(store.runs_folder(runs) / "store")))
        for sentence in sentences:
            answer(sentence)
        if not sentences:
            answer(f"{runs}: nothing to do; all of it is as this fw writes it")
    elif prune:
        confirmed_removal(runs, yes)
    elif as_json:
        print(json.dumps(store.document(store.survey(runs)), indent=1))
    else:
        store.show(store.survey(runs), wide_console())


def confirmed_removal(runs: Path, yes: bool) -> None:
    """Name what no run uses, ask, look again and remove it."""
    import sys

    from fw.core.commands import store
    from fw.core.machine.memory import in_words

    removal = store.removable(runs)
    if not removal.sizes:
        answer(f"{runs}: every product is used by a run")
        return
    for name, size in removal.sizes.items():
        answer(f"{name:34} {in_words(size)}")
    if not yes:
        if not sys.stdin.isatty():
            raise FwError(f"{removal}: nobody is here to be asked; --yes removes them")
        if not typer.confirm(f"Remove {removal}?"):
            answer("nothing was removed")
            raise typer.Exit(1)
        known, removal = removal.sizes, store.removable(runs)  # the answer may have taken hours
        if removal.sizes.keys() - known.keys():
            raise FwError("more has lost its last run meanwhile; look at it, and ask again")
    kept = 0
    for name, reason in store.remove(removal):
        if reason:
            kept += 1
            answer(f"kept {name}: {reason}")
    answer(f"{len(removal.sizes) - kept} removed")
