"""The command line of `fw compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fw.core.cli import completing
from fw.core.cli.answers import wide_console
from fw.core.cli.arguments import DEFAULT_OUT, Out
from fw.core.cli.beginning import end_dead_runs, tracker_of
from fw.core.errors import FwError


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="run folders, such as runs/self_guidance/latest, or MLflow's runs:/ID and the "
            "addresses of its pages",
            autocompletion=completing.runs,
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="answer with one JSON document")] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="answer with a line for each score and seed")
    ] = False,
    html: Annotated[Path | None, typer.Option("--html", help="write a page to this file")] = None,
    tracker: Annotated[
        str, typer.Option("--tracker", help="who knows runs that are in no folder")
    ] = "mlflow",
    out: Out = DEFAULT_OUT,
) -> None:
    """Compare finished runs; runs of one recipe from several seeds count as one."""
    from os.path import exists  # False of what can be no path, where Path.exists raises

    from fw.core.commands import compare
    from fw.core.run.finished import FinishedRun

    if as_json and as_csv:
        raise FwError("--json and --csv: name one")
    for name in filter(exists, runs):
        end_dead_runs(FinishedRun(Path(name)).root)
    results = [compare.read(name, lambda: tracker_of(tracker), out) for name in runs]
    if html is not None:
        compare.as_html(results, html)
    if as_json or as_csv:
        print(compare.as_json(results) if as_json else compare.as_csv(results).rstrip("\n"))
    elif html is None:
        compare.compare(results, wide_console())
