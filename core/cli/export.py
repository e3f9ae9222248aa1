"""The command line of `fw export`."""

from __future__ import annotations

from typing import Annotated

import typer

from fw.core.cli import completing
from fw.core.cli.answers import answer
from fw.core.cli.arguments import Batch, Device, Plugins, RunPath, Training
from fw.core.cli.beginning import add_plugins, end_dead_runs


def export(
    run_: RunPath,
    arm: Annotated[
        str, typer.Option("--arm", help="the arm to export", autocompletion=completing.arms)
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="samples.npz (as ADM's evaluator reads it), a folder/ of PNG files, or "
            "model.safetensors",
            metavar="PATH",
        ),
    ],
    as_: Annotated[
        str | None,
        typer.Option(
            "--as",
            help="npz, png, safetensors, or diffusers: a folder that from_pretrained reads "
            "[default: by the name]",
            metavar="FORM",
        ),
    ] = None,
    training: Training = None,
    count: Annotated[
        int | None,
        typer.Option(
            "-n", min=1, help="images of one sampling seed [default: all that were scored]"
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="that sampling seed; the report's are 0, 1, 2, ...")
    ] = None,
    device: Device = "auto",
    batch: Batch = None,
    plugin: Plugins = None,
) -> None:
    """Write an arm's samples or its network for other tools."""
    from rich.console import Console

    from fw.core.commands.export import export as write
    from fw.core.export.images import Choice
    from fw.core.run.finished import FinishedRun

    add_plugins(plugin)
    finished = FinishedRun(run_)
    end_dead_runs(finished.root)
    choice = Choice(count, seed, device, batch)
    for line in write(finished, arm, training, to, as_, choice, Console(stderr=True)):
        answer(line)
