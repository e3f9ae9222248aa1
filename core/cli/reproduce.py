"""The command line of `fw reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fw.core.cli.answers import answer, wide_console
from fw.core.cli.arguments import Device, RunPath
from fw.core.cli.beginning import end_dead_runs
from fw.core.errors import FwError


def reproduce(
    run_: RunPath,
    from_samples: Annotated[
        bool,
        typer.Option("--from-samples", help="make the features of stored images again, too"),
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="run the logged recipe anew, trainings included")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="where --again runs it [default: a folder that is deleted]"),
    ] = None,
    device: Device = "auto",
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="stages of --again side by side [default: as of fw run]"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="CPU threads, as the run had [default: 1 on CPU]")
    ] = None,
) -> None:
    """Compute a run's scores once more and compare them with its table, bit for bit.

    Local plugins are executed as the run kept them."""
    from rich.console import Console

    from fw.core.execution.options import Options
    from fw.core.machine.stopping import shelter_resource_tracker
    from fw.core.report import agreement
    from fw.core.run.finished import FinishedRun

    if again and from_samples:
        raise FwError("--from-samples and --again: name one; --again makes new samples")
    if not again and (out is not None or jobs is not None):
        raise FwError("--out and --jobs are about --again, which is not there")
    shelter_resource_tracker()
    finished, console = FinishedRun(run_), Console(stderr=True)
    end_dead_runs(finished.root)
    if again:
        from fw.core.commands.again import rerun

        lines = rerun(finished, out, Options(Path(), device, jobs, workers), console)
    else:
        from fw.core.commands.reproduce import Request, recompute

        lines = recompute(finished, Request(from_samples, device, workers), console)
    stdout = wide_console()
    agreement.show(lines, stdout)
    answer(agreement.conclusion(lines))
    if any(line.fault for line in lines):
        raise typer.Exit(1)
