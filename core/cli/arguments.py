"""Arguments and options that several commands have, and how they are checked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fw.core.cli import completing
from fw.core.messages.escaping import visible


def checked_device(device: str) -> str:
    """Refuse a --device that fw does not run on, in every command and before any work."""
    if device not in ("auto", "cpu"):
        from fw.core.execution.devices import known_device

        known_device(device)
    return device


def recipe_file(path: Path) -> Path:
    """A recipe's file; of one that comes with fw and was named without its path, says which."""
    from fw.core.recipe.shipped import located

    if (file := located(path)) != path:
        print(visible(f"recipe {file}"), file=sys.stderr)
    return file


def recipe_files(paths: list[Path]) -> list[Path]:
    return [recipe_file(path) for path in paths]


RecipePath = Annotated[
    Path,
    typer.Argument(
        help="a recipe's file, or the name of one that comes with fw, such as self_guidance",
        metavar="RECIPE",
        callback=recipe_file,
        autocompletion=completing.recipes,
    ),
]
RunPath = Annotated[
    Path,
    typer.Argument(
        help="a run folder, such as runs/self_guidance/latest",
        metavar="RUN",
        autocompletion=completing.runs,
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="override a key: --set train.steps=2000, or append to a list: --set metrics+=prdc; "
        "may be repeated",
        metavar="KEY=VALUE",
        autocompletion=completing.keys,
    ),
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        help="a plugin in one .py file, not installed; may be repeated",
        autocompletion=completing.plugin_files,
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        help="folder of the store, the runs and MLflow's database",
        autocompletion=completing.runs_folders,
    ),
]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda or cuda:N", callback=checked_device)
]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, help="stages side by side [default: a CPU core or a GPU each]"),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        help="do the stages on a Ray cluster: auto, local (start one here) or host:port",
        metavar="ADDRESS",
    ),
]
Wait = Annotated[
    bool,
    typer.Option(
        "--wait", help="with --cluster: wait for a node that has room for a stage, if none has"
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="show the plan and stop")]
KeepDependents = Annotated[
    bool,
    typer.Option(
        "--keep-dependents", help="keep what was made of products that were made again since"
    ),
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
