"""The command line of `fw heatmap`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fw.core.cli import completing
from fw.core.cli.answers import answer
from fw.core.cli.arguments import Device, Plugins, Training
from fw.core.cli.beginning import add_plugins, end_dead_runs


def heatmap(
    run_: Annotated[
        Path,
        typer.Argument(
            help="a run folder, such as runs/diffusion_features/latest",
            metavar="RUN",
            autocompletion=completing.runs,
        ),
    ],
    arm: Annotated[
        str,
        typer.Option(
            "--arm",
            help="the arm whose trained model is read",
            autocompletion=completing.arms,
        ),
    ],
    training: Training = None,
    sigmas: Annotated[
        str | None,
        typer.Option("--sigmas", help="noise levels, such as 0.05,0.5 [default: 0.02 to 2]"),
    ] = None,
    count: Annotated[
        int, typer.Option("-n", min=20, help="at most so many images of each split")
    ] = 5000,
    draws: Annotated[
        int, typer.Option("--draws", min=1, help="draws of noise that are averaged")
    ] = 4,
    output: Annotated[
        Path | None,
        typer.Option("-o", help="the PNG to write, with a JSON beside it [default: in RUN]"),
    ] = None,
    device: Device = "auto",
    plugin: Plugins = None,
) -> None:
    """Probe what each block of a trained model knows of the labels at each noise level."""
    from rich.console import Console

    from fw.core.commands import heatmap
    from fw.core.run.finished import FinishedRun

    add_plugins(plugin)
    finished = FinishedRun(run_)
    end_dead_runs(finished.root)
    request = heatmap.Request(
        arm, heatmap.levels(sigmas) if sigmas is not None else (), count, draws, device, training
    )
    console = Console(stderr=True)
    output = heatmap.target(finished, request, output)
    result = heatmap.survey(finished, request, console)
    for path in heatmap.write(result, output):
        answer(path)
    answer(heatmap.verdict(result))
    heatmap.log(finished, result, output, console)
