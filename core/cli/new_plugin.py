"""The command line of `fw new-plugin`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fw.core import templates
from fw.core.cli.answers import answer


def new_plugin(
    name: Annotated[
        str, typer.Argument(help="the package's name, such as fw-sharpen", metavar="NAME")
    ],
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            help=", ".join(templates.names()),
            autocompletion=templates.names,
        ),
    ],
    into: Annotated[
        Path, typer.Option("--into", help="the folder to make the package in")
    ] = Path(),
    component: Annotated[
        str | None,
        typer.Option("--component", help="what recipes call it [default: NAME without fw-]"),
    ] = None,
) -> None:
    """Write a complete plugin package to start from; its tests, lint and types are clean."""
    import shlex

    from fw.core.commands import new_plugin as scaffold

    for path in scaffold.new_plugin(name, kind, into, component):
        answer(f"wrote {path}")
    print("next:")
    for command in (
        f"cd {shlex.quote(str(into / name))}",
        'python -m pip install --editable ".[test]"',
        "pytest",
    ):
        answer(f"  {command}")
