"""The command line of `fw verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fw.core.cli import completing
from fw.core.cli.answers import answer
from fw.core.cli.arguments import DEFAULT_OUT


def verify(
    path: Annotated[
        Path,
        typer.Argument(
            help="a runs folder, its store, or one run's folder",
            metavar="STORE|RUN",
            autocompletion=completing.runs,
        ),
    ] = DEFAULT_OUT,
    discard: Annotated[
        bool, typer.Option("--discard", help="discard damaged products, to be made again")
    ] = False,
) -> None:
    """Compare every byte of stored products with their checksums."""
    from fw.core.commands.verify import verify as verify_products

    damaged = 0
    for stage, reason in verify_products(path, discard):
        damaged += 1
        answer(f"{stage}: {reason}{'; discarded' if discard else ''}")
    if damaged:
        then = "the recipe run again makes them again"
        then = then if discard else f"discard them with --discard, and {then}"
        answer(f"{damaged} damaged products; {then}")
        raise typer.Exit(1)
    answer(f"{path}: every product is as it was stored")
