"""The command line of `fw register`."""

from __future__ import annotations

from typing import Annotated

import typer

from fw.core.cli import completing
from fw.core.cli.answers import answer
from fw.core.cli.arguments import Plugins, RunPath, Training
from fw.core.cli.beginning import add_plugins, end_dead_runs


def register(
    run_: RunPath,
    arm: Annotated[
        str,
        typer.Option(
            "--arm",
            help="the arm whose model it is",
            autocompletion=completing.arms,
        ),
    ],
    name: Annotated[str, typer.Option("--name", help="the model's name in the registry")],
    training: Training = None,
    plugin: Plugins = None,
) -> None:
    """Register an arm's model with the recipe's tracker; prints the address to load it by."""
    from fw.core.run.finished import FinishedRun
    from fw.core.run.register import register as register_arm

    add_plugins(plugin)
    finished = FinishedRun(run_)
    end_dead_runs(finished.root)
    answer(register_arm(finished, arm, training, name))
