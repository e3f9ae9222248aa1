"""The command line of `fw work`."""

from __future__ import annotations

from typing import Annotated

import typer

from fw.core.cli.answers import answer
from fw.core.cli.arguments import (
    DEFAULT_OUT,
    Batch,
    CheckpointSeconds,
    Device,
    MaxMemory,
    Out,
    Plugins,
    Ranks,
    RecipePath,
    Sets,
    Workers,
)
from fw.core.cli.beginning import add_plugins


def work(
    recipe: RecipePath,
    set_: Sets = None,
    plugin: Plugins = None,
    out: Out = DEFAULT_OUT,
    device: Device = "auto",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="stages side by side [default: as of fw run]")
    ] = None,
    workers: Workers = None,
    checkpoint_seconds: CheckpointSeconds = 20.0,
    batch: Batch = None,
    ranks: Ranks = "1",
    max_memory: MaxMemory = None,
) -> None:
    """Do a recipe's stages beside other runs on the same store; no tracker, no report.

    Ends when all stages are finished, here or there; `fw run` reports them."""
    from rich.console import Console

    from fw.core.execution.devices import known_nodes, known_ranks
    from fw.core.execution.options import Options
    from fw.core.machine.memory import size_of
    from fw.core.machine.stopping import shelter_resource_tracker
    from fw.core.plan.assembly import plan
    from fw.core.recipe.loading import load
    from fw.core.run.missing import finish

    shelter_resource_tracker()
    add_plugins(plugin)
    loaded = load(recipe, set_ or ())
    planned = plan(loaded)
    options = Options(
        out=out,
        device=device,
        jobs=jobs,
        threads=workers,
        checkpoint_seconds=checkpoint_seconds,
        batch=batch,
        max_memory=None if max_memory is None else size_of(max_memory),
        ranks=known_ranks(ranks),
        nodes=known_nodes(ranks),
    )
    finish(loaded, planned, options, Console(stderr=True))
    answer(f"all {len(planned.stages)} stages are finished in {options.store}")
