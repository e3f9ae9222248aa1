"""The command line of `fw run`."""

from __future__ import annotations

from typing import Annotated

import typer

from fw.core.cli import completing
from fw.core.cli.arguments import (
    DEFAULT_OUT,
    Batch,
    CheckpointSeconds,
    Cluster,
    Device,
    DryRun,
    Jobs,
    KeepDependents,
    MaxMemory,
    Out,
    Plugins,
    Ranks,
    RecipePath,
    Sets,
    Wait,
    Workers,
)
from fw.core.cli.beginning import add_plugins, end_dead_runs
from fw.core.cli.running import run_and_show, show_plan


def run(
    recipe: RecipePath,
    set_: Sets = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            "--arm",
            help="only this arm; may be repeated",
            autocompletion=completing.arms,
        ),
    ] = None,
    plugin: Plugins = None,
    dry_run: DryRun = False,
    out: Out = DEFAULT_OUT,
    device: Device = "auto",
    jobs: Jobs = None,
    ranks: Ranks = "1",
    cluster: Cluster = None,
    wait: Wait = False,
    workers: Workers = None,
    checkpoint_seconds: CheckpointSeconds = 20.0,
    batch: Batch = None,
    max_memory: MaxMemory = None,
    keep_dependents: KeepDependents = False,
) -> None:
    """Run a recipe; run it again to resume. Ends with a table of the arms."""
    from rich.console import Console

    from fw.core.execution.options import Options
    from fw.core.machine.stopping import shelter_resource_tracker
    from fw.core.plan.assembly import plan
    from fw.core.recipe.loading import load
    from fw.core.run.cautions import warned
    from fw.core.store.store import Store

    shelter_resource_tracker()
    add_plugins(plugin)
    end_dead_runs(out)
    loaded = load(recipe, set_ or ())
    planned = plan(loaded, arm or ())
    console = Console(stderr=True)
    warnings = warned(loaded, planned, console)
    options = Options.of(
        ranks,
        max_memory,
        workers,
        out=out,
        device=device,
        jobs=jobs,
        checkpoint_seconds=checkpoint_seconds,
        batch=batch,
        keep_dependents=keep_dependents,
        cluster=cluster,
        wait=wait,
    )
    if dry_run:
        show_plan(planned, Store(options.store), options)
        return
    run_and_show(loaded, planned, options, warnings, console)
