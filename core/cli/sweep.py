"""The command line of `fw sweep`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fw.core.cli.answers import answer
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

if TYPE_CHECKING:
    from fw.core.recipe.model import Recipe


def sweep(
    recipe: RecipePath,
    over: Annotated[
        list[str],
        typer.Option(
            "--over",
            help="a key and its values: guidance.scale=1:3:0.25 (STOP is included), "
            "train.lr=0.001:0.1:x10, annotator.clusters=10,30,100; several --over make a grid",
            metavar="KEY=VALUES",
        ),
    ],
    arm: Annotated[
        str | None,
        typer.Option("--arm", help="the arm to vary [default: the one that has the keys]"),
    ] = None,
    set_: Sets = None,
    plugin: Plugins = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", help="a file to write the sweep's recipe to, beside the run's folder"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="run a grid of more than 100 points")] = False,
    sampler: Annotated[
        str | None,
        typer.Option("--sampler", help="optuna: search the grid by its TPE, not all of it"),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="points that a search tries [default: 20]")
    ] = None,
    minimise: Annotated[
        str | None,
        typer.Option("--minimise", help="the score to rank by [default: the headline]"),
    ] = None,
    maximise: Annotated[
        str | None, typer.Option("--maximise", help="the same of one that is better if it is high")
    ] = None,
    again: Annotated[
        int | None,
        typer.Option(
            "--again",
            min=0,
            max=1000,
            help="fresh seeds to score the best point on, beside the baseline [default: 3 after a "
            "search, else 0]",
        ),
    ] = None,
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
    """Run an arm of a recipe with each of several values of its keys; again to resume.

    The result is a recipe, too: `sweep.yaml` in the run's folder."""
    from rich.console import Console

    from fw.core.commands.sweep import sweep as sweeping
    from fw.core.execution.options import Options
    from fw.core.machine.stopping import shelter_resource_tracker
    from fw.core.messages.console import say
    from fw.core.plan.assembly import plan
    from fw.core.recipe.source import read
    from fw.core.run.cautions import warned
    from fw.core.store.store import Store

    shelter_resource_tracker()
    add_plugins(plugin)
    end_dead_runs(out)
    source, console = read(recipe), Console(stderr=True)
    source.set(set_ or ())
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
    request = sweeping.Request(
        over=over,
        arm=arm,
        sampler=sampler,
        trials=trials,
        minimise=minimise,
        maximise=maximise,
        again=again,
        yes=yes,
        output=output,
        command=f"fw {shlex.join(sys.argv[1:])}",
    )
    wanted = sweeping.wanted(source, request, options)
    say(console, sweeping.summary(wanted))
    if wanted.search is not None or dry_run:
        first = wanted.recipe(wanted.data(wanted.points))
        planned = plan(first)
        warned(first, planned, console)
    if dry_run:
        show_plan(planned, Store(options.store), options)
        return

    def run(recipe: Recipe) -> dict[str, Any]:
        planned = plan(recipe)
        return run_and_show(recipe, planned, options, warned(recipe, planned, console), console)

    for path in sweeping.sweep(wanted, run, options, console):
        answer(f"recipe  {path}")
