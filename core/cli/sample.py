"""The command line of `fw sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fw.core.cli import completing
from fw.core.cli.answers import answer
from fw.core.cli.arguments import Batch, Device, Plugins, RunPath, Training
from fw.core.cli.beginning import add_plugins, end_dead_runs


def sample(
    run_: RunPath,
    arm: Annotated[
        str,
        typer.Option(
            "--arm",
            help="the arm to sample from",
            autocompletion=completing.arms,
        ),
    ],
    training: Training = None,
    count: Annotated[int, typer.Option("-n", min=1, help="how many images")] = 64,
    output: Annotated[Path, typer.Option("-o", help="the PNG to write")] = Path("grid.png"),
    seed: Annotated[
        int, typer.Option(min=0, help="sampling seed; the report's are 0, 1, 2, ...")
    ] = 0,
    device: Device = "auto",
    batch: Batch = None,
    plugin: Plugins = None,
) -> None:
    """Draw fresh samples from a trained arm."""
    from rich.console import Console

    from fw.core.commands.sample import draw
    from fw.core.run.finished import FinishedRun

    add_plugins(plugin)
    finished = FinishedRun(run_)
    end_dead_runs(finished.root)
    draw(finished, arm, training, count, output, seed, device, batch, Console(stderr=True))
    answer(output)
