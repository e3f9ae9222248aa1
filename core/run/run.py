"""`fw run`: check, do what is missing, log it, report it. The same command again continues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.console import Console

from fw.core.errors import StageFailed
from fw.core.kinds import TrackedRun
from fw.core.machine.stopping import stop_on_signals
from fw.core.messages.console import say
from fw.core.plan.assembly import plan as plan_all
from fw.core.plan.graph import Plan
from fw.core.recipe.model import Recipe
from fw.core.report import provenance
from fw.core.run import splits
from fw.core.run.board import Board
from fw.core.run.conclude import conclude
from fw.core.run.execute_plan import Outcome, run_stages
from fw.core.run.execute_stage import Place
from fw.core.run.opening import open_tracker
from fw.core.run.options import Options, places
from fw.core.run.owner import owner
from fw.core.run.preflight import preflight
from fw.core.run.record import Turn, describe, previous_run, run_folder
from fw.core.run.scope import Scope
from fw.core.run.tracking import Tracking
from fw.core.store.soundness import usable_stages
from fw.core.store.store import Store


class Ending(NamedTuple):
    """What run.json says, and why stages failed, or None."""

    result: dict[str, Any]
    failure: StageFailed | None


def run(
    recipe: Recipe,
    plan: Plan,
    options: Options,
    warnings: Sequence[str],
    console: Console,
) -> Ending:
    """Run a plan. Stages that fail do not hide what the others found. Raises Interrupted after all
    is tidied up."""
    store = Store(options.store)
    store.create()
    everything = plan_all(recipe)
    sound = usable_stages(everything, store, console, options.keep_dependents)
    finished = [stage for stage in plan.stages if stage in sound]
    preflight(plan, finished)
    data = splits.examine(recipe.dataset, store.root)
    for warning in data.warnings:
        say(console, f"warning: {warning}", style="yellow")
    plugins = provenance.files(recipe)
    jobs = places(options, len(plan.stages) - len(finished), plugins)
    scope = Scope(
        recipe=recipe,
        plan=plan,
        everything=everything,
        store=store,
        folder=run_folder(recipe, plugins, options.root),
        plugins=plugins,
        made_by=provenance.record(everything),
        warnings=[*warnings, *data.warnings],
        class_names=data.class_names,
    )
    result, outcome = recorded(scope, finished, jobs, console)
    return Ending(result, outcome.failure(plan))


def recorded(
    scope: Scope, finished: Sequence[str], jobs: Sequence[Place], console: Console
) -> tuple[dict[str, Any], Outcome]:
    """Do the stages that are not finished, and write the run's record, in turn with other processes
    that run the same."""
    plan, store, folder = scope.plan, scope.store, scope.folder
    with stop_on_signals() as stopping, Turn(folder) as turn:
        mine = turn.take()
        if not mine:
            other = f"{owner(folder)} writes the record of this very run"
            along = "this one works along, and writes when that has ended"
            say(console, f"{other}; {along}", style="yellow")
        tracking = Tracking(plan, store, console, lambda: tracker_of(scope), stopping.shield)
        with Board(plan, store, console, tracking) as board:
            status = "killed"
            try:
                if mine:
                    describe(scope.recipe, scope.plugins, folder)
                    tracking.begin()
                for stage in finished:
                    tracking.done(stage)
                outcome = run_stages(plan, finished, jobs, board, stopping)
                if mine:
                    tracking.catch_up()
                else:
                    turn.wait(stopping)
                    tracking.open_late()
                result = conclude(scope, outcome, tracking)
                status = outcome.status
            finally:
                tracking.end(status)
                turn.ended = not tracking.failed
    return result, outcome


def tracker_of(scope: Scope) -> TrackedRun:
    """The recipe's tracker, opened for what the run's folder says by now."""
    previous = previous_run(scope.folder)
    return open_tracker(scope.recipe, scope.plan, scope.made_by, scope.folder, previous)
