"""The command line of `fw clusters`."""

from __future__ import annotations

from typing import Annotated

import typer

from fw.core.cli import completing
from fw.core.cli.answers import wide_console
from fw.core.cli.arguments import DEFAULT_OUT, Device, Out, Plugins, RecipePath, Sets
from fw.core.cli.beginning import add_plugins, end_dead_runs


def clusters(
    recipe: RecipePath,
    set_: Sets = None,
    arm: Annotated[
        str | None,
        typer.Option(
            "--arm",
            help="whose encoder and annotator [default: the first that clusters]",
            autocompletion=completing.arms,
        ),
    ] = None,
    counts: Annotated[
        str | None,
        typer.Option(
            "-k", help="numbers of clusters [default: 10,20,50,... up to half the images]"
        ),
    ] = None,
    plugin: Plugins = None,
    out: Out = DEFAULT_OUT,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="answer with one JSON document")] = False,
) -> None:
    """Show how an annotator divides an arm's features at several numbers of clusters K."""
    from rich.console import Console

    from fw.core.commands import clusters
    from fw.core.execution.options import Options
    from fw.core.files.strict import strict
    from fw.core.machine.stopping import shelter_resource_tracker
    from fw.core.recipe.loading import load

    shelter_resource_tracker()
    add_plugins(plugin)
    end_dead_runs(out)
    numbers = clusters.numbers(counts) if counts is not None else []
    result = clusters.survey(
        load(recipe, set_ or ()), arm, numbers, Options(out, device), Console(stderr=True)
    )
    if as_json:
        print(strict(result))
    else:
        clusters.show(result, wide_console())
