"""The command line of `fw recipes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fw.core.cli import completing
from fw.core.cli.answers import answer
from fw.core.errors import FwError


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(
            help="the one to copy [default: list them]",
            metavar="NAME",
            autocompletion=completing.shipped_names,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", help="the file or the folder to copy it to [default: NAME.yaml here]"),
    ] = None,
) -> None:
    """List the recipes that come with fw, or copy one, to change it."""
    from fw.core.recipe.shipped import about, copy, shipped

    if name is not None:
        answer(copy(name, output))
        return
    if output is not None:
        raise FwError("-o is about one recipe: name it")
    for recipe in shipped().values():
        answer(recipe)
        answer(f"    {about(recipe)}")
