"""The command line of `fw ui`."""

from __future__ import annotations

from typing import Annotated

import typer

from fw.core.cli.arguments import DEFAULT_OUT, Out
from fw.core.cli.beginning import end_dead_runs, tracker_of


def ui(
    out: Out = DEFAULT_OUT,
    port: Annotated[int, typer.Option(min=1, max=65535, help="port on this machine")] = 5000,
    tracker: Annotated[str, typer.Option("--tracker", help="whose page")] = "mlflow",
    browser: Annotated[
        bool,
        typer.Option(help="open the newest run's page in a browser, if there is a display"),
    ] = True,
) -> None:
    """Open the tracker's page, MLflow's by default, on the runs in a folder."""
    from inspect import signature

    end_dead_runs(out)
    serve = tracker_of(tracker).serve
    options = {"browse": browser} if "browse" in signature(serve).parameters else {}
    raise typer.Exit(serve(out.absolute(), port, **options))
