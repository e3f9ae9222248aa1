"""Arguments and options that several commands have, and how they are checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def checked_device(device: str) -> str:
    """Refuse a --device that fw does not run on, in every command and before any work."""
    if device not in ("auto", "cpu"):
        from fw.core.execution.devices import known_device

        known_device(device)
    return device


RecipePath = Annotated[
    Path, typer.Argument(help="a recipe, such as recipes/self_guidance.yaml", metavar="RECIPE")
]
RunPath = Annotated[
    Path, typer.Argument(help="a run folder, such as runs/self_guidance/latest", metavar="RUN")
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="override a key: --set train.steps=2000", metavar="KEY=VALUE"),
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", help="a plugin in one .py file, not installed; may be repeated"),
]
Out = Annotated[
    Path, typer.Option("--out", help="folder of the store, the runs and MLflow's database")
]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda or cuda:N", callback=checked_device)
]
Batch = Annotated[
    int | None,
    typer.Option(
        min=1, max=1000, help="images sampled at once [default: as many as suit the device]"
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="CPU threads of each job [default: 1 on CPU]")
]
CheckpointSeconds = Annotated[float, typer.Option(min=0, help="time between checkpoints")]
Ranks = Annotated[
    str,
    typer.Option(
        "--ranks",
        help="processes, or GPUs, that do a stage together; auto divides the GPUs among the jobs; "
        "2x8 on a cluster: 8 on each of 2 nodes",
    ),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        help="stop a stage whose process takes more memory than this, such as 8G; mapped files do "
        "not count",
        metavar="SIZE",
    ),
]
Training = Annotated[
    int | None,
    typer.Option(
        "--training",
        help="the seed of the training, where the run has several (repeats) [default: the first]",
        metavar="SEED",
    ),
]
DEFAULT_OUT = Path("runs")
