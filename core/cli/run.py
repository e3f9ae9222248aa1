"""The command line of `fw run`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fw.core.cli.answers import answer, wide_console
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
from fw.core.cli.beginning import add_plugins, end_dead_runs


def run(
    recipe: RecipePath,
    set_: Sets = None,
    arm: Annotated[
        list[str] | None, typer.Option("--arm", help="only this arm; may be repeated")
    ] = None,
    plugin: Plugins = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the plan and stop")] = False,
    out: Out = DEFAULT_OUT,
    device: Device = "auto",
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="stages side by side [default: a CPU core or a GPU each]"),
    ] = None,
    ranks: Ranks = "1",
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            help="do the stages on a Ray cluster: auto, local (start one here) or host:port",
            metavar="ADDRESS",
        ),
    ] = None,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait", help="with --cluster: wait for a node that has room for a stage, if none has"
        ),
    ] = False,
    workers: Workers = None,
    checkpoint_seconds: CheckpointSeconds = 20.0,
    batch: Batch = None,
    max_memory: MaxMemory = None,
    keep_dependents: Annotated[
        bool,
        typer.Option(
            "--keep-dependents", help="keep what was made of products that were made again since"
        ),
    ] = False,
) -> None:
    """Run a recipe; run it again to resume. Ends with a table of the arms."""
    from rich.console import Console

    from fw.core.execution.devices import known_nodes, known_ranks
    from fw.core.execution.options import Options
    from fw.core.machine.memory import size_of
    from fw.core.machine.stopping import shelter_resource_tracker
    from fw.core.messages.console import say
    from fw.core.plan.assembly import plan
    from fw.core.recipe import checks
    from fw.core.recipe.loading import load
    from fw.core.report import provenance
    from fw.core.report.page.write import PAGE
    from fw.core.report.terminal import show
    from fw.core.run.run import run as run_plan
    from fw.core.store.store import Store

    shelter_resource_tracker()
    add_plugins(plugin)
    end_dead_runs(out)
    loaded = load(recipe, set_ or ())
    planned = plan(loaded, arm or ())
    console = Console(stderr=True)
    warnings = [*map(str, checks.warnings(loaded)), *provenance.notices(planned)]
    for warning in warnings:
        say(console, f"warning: {warning}", style="yellow")
    options = Options(
        out=out,
        device=device,
        jobs=jobs,
        threads=workers,
        checkpoint_seconds=checkpoint_seconds,
        batch=batch,
        max_memory=None if max_memory is None else size_of(max_memory),
        keep_dependents=keep_dependents,
        ranks=known_ranks(ranks),
        nodes=known_nodes(ranks),
        cluster=cluster,
        wait=wait,
    )
    if dry_run:
        show_plan(planned, Store(options.store))
        return
    result, failure = run_plan(loaded, planned, options, warnings, console)
    stdout = wide_console()
    show(result, stdout)
    say(stdout, f"report  {out / loaded.name / 'latest' / PAGE}")
    if result.get("look"):
        say(stdout, f"look    {result['look']}")
    if failure is not None:
        raise failure


def show_plan(planned: Any, store: Any) -> None:
    """The stages in running order, whether they are done, and each arm's network evaluations."""
    for stage in planned.stages.values():
        state = store.status(stage.id).state
        answer(f"{'done' if state == 'done' else 'to do':6} {stage.id:26} {stage.title}")
    for name, arm in planned.arms.items():
        answer(
            f"arm {name}: at most {arm.nfe} network evaluations per image, trained in {arm.train}"
        )
