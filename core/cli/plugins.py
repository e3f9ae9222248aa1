"""The command line of `fw plugins`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fw.core.cli import completing
from fw.core.cli.arguments import Plugins
from fw.core.cli.beginning import add_plugins


def plugins(
    name: Annotated[
        str | None,
        typer.Argument(
            help="a component, a kind or a plugin, to see all of it",
            autocompletion=completing.components,
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind",
            help="only components of this kind",
            autocompletion=completing.kinds,
        ),
    ] = None,
    plugin: Plugins = None,
    check: Annotated[
        bool, typer.Option("--check", help="run the contract kit on the components")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="answer with one JSON document")] = False,
) -> None:
    """List the components that recipes can name, their plugins, and which plugins are broken."""
    from contextlib import redirect_stdout

    from rich.console import Console

    from fw.core.catalogue.view import Request
    from fw.core.catalogue.view import answer as answer_request
    from fw.registry import installed

    stdout = Console(file=sys.stdout)
    with redirect_stdout(sys.stderr):  # what plugins print is not the answer
        add_plugins(plugin)
        request = Request(name, kind, plugin or (), check, as_json)
        passed = answer_request(request, installed(), stdout)
    if not passed:
        raise typer.Exit(1)
