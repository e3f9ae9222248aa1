"""The command line of `fw plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fw.core.cli import completing
from fw.core.cli.answers import answer
from fw.core.cli.beginning import end_dead_runs


def plot(
    run_: Annotated[
        Path,
        typer.Argument(
            help="a run folder, such as runs/clusters/latest",
            metavar="RUN",
            autocompletion=completing.runs,
        ),
    ],
    x: Annotated[
        str | None,
        typer.Option(
            "--x",
            help="the recipe's key, such as annotator.clusters [default: of a sweep its longest]",
            metavar="KEY",
        ),
    ] = None,
    y: Annotated[
        str | None,
        typer.Option("--y", help="scores, such as fd_classifier,recall [default: the first four]"),
    ] = None,
    output: Annotated[Path, typer.Option("-o", help="the PNG to write")] = Path("sweep.png"),
) -> None:
    """Draw scores of a finished run against a key in which its arms differ."""
    from fw.core.commands.plot import plot as plot_sweep
    from fw.core.run.finished import FinishedRun

    finished = FinishedRun(run_)
    end_dead_runs(finished.root)
    plot_sweep(finished, x, y.split(",") if y else [], output)
    answer(output)
