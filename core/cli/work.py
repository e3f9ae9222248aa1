"""The command line of `fw work`."""

from __future__ import annotations

from fw.core.cli.answers import answer
from fw.core.cli.arguments import (
    DEFAULT_OUT,
    Batch,
    CheckpointSeconds,
    Device,
    Jobs,
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
    jobs: Jobs = None,
    workers: Workers = None,
    checkpoint_seconds: CheckpointSeconds = 20.0,
    batch: Batch = None,
    ranks: Ranks = "1",
    max_memory: MaxMemory = None,
) -> None:
    """Do a recipe's stages beside other runs on the same store; no tracker, no report.

    Ends when all stages are finished, here or there; `fw run` reports them."""
    from rich.console import Console

    from fw.core.execution.options import Options
    from fw.core.machine.stopping import shelter_resource_tracker
    from fw.core.plan.assembly import plan
    from fw.core.recipe.loading import load
    from fw.core.run.missing import finish

    shelter_resource_tracker()
    add_plugins(plugin)
    loaded = load(recipe, set_ or ())
    planned = plan(loaded)
    options = Options.of(
        ranks,
        max_memory,
        workers,
        out=out,
        device=device,
        jobs=jobs,
        checkpoint_seconds=checkpoint_seconds,
        batch=batch,
    )
    finish(loaded, planned, options, Console(stderr=True))
    answer(f"all {len(planned.stages)} stages are finished in {options.store}")
