"""`fw run`: check, do what is missing, log it, report it. The same command again continues."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from rich.console import Console

from fw.core.errors import StageFailed
from fw.core.execution.executor import Executor, Outcome
from fw.core.execution.executors import chosen
from fw.core.execution.options import Options
from fw.core.machine.stopping import stop_on_signals
from fw.core.messages.console import say
from fw.core.plan.assembly import plan as plan_all
from fw.core.plan.graph import Plan
from fw.core.recipe.model import Recipe
from fw.core.report import provenance
from fw.core.run import splits
from fw.core.run.board import Board
from fw.core.run.conclude import conclude
from fw.core.run.models import Models
from fw.core.run.opening import opened, teller
from fw.core.run.owner import owner
from fw.core.run.preflight import preflight
from fw.core.run.record import Turn, describe, remember, run_folder
from fw.core.run.scope import Scope
from fw.core.run.tracking import Tracking
from fw.core.store.at_work import at_work
from fw.core.store.shorter import stateless
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
    with at_work(store, recipe.name, plan, everything):
        sound = usable_stages(everything, store, console, options.keep_dependents)
        finished = [stage for stage in plan.stages if stage in sound]
        plugins = provenance.files(recipe)
        with chosen(options, plan, finished, plugins, console) as executor:
            preflight(plan, finished, executor.place)
            data = splits.examine(recipe.dataset, store.root)
            for warning in data.warnings:
                say(console, f"warning: {warning}", style="yellow")
            for text in stateless([plan.stages[stage] for stage in finished], store):
                say(console, f"note: {text}")
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
            result, outcome = recorded(scope, finished, executor, console)
    return Ending(result, outcome.failure(plan))


def recorded(
    scope: Scope, finished: Sequence[str], executor: Executor, console: Console
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
        tracking = tracking_of(scope, console)
        with Board(plan, store, console, tracking) as board:
            status = "killed"
            try:
                if mine:
                    describe(scope.recipe, scope.plugins, folder)
                    begin(tracking, scope)
                for stage in finished:
                    tracking.done(stage)
                outcome = executor.run(plan, finished, board, stopping)
                if not mine:
                    turn.wait(stopping)
                    begin(tracking, scope)
                    for stage in plan.stages:
                        tracking.done(stage)
                turn.keep()
                result = conclude(scope, outcome, tracking)
                status = outcome.status
            finally:
                arrived = turn.lost or tracking.end(status)  # now another process tells it
                turn.ended = True
        if not arrived:
            lacking = f"the tracker lacks a part of this run: `fw sync {folder}` logs it"
            say(console, f"warning: {lacking}", style="yellow")
        keep_handle(tracking, scope)
    return result, outcome


def tracking_of(scope: Scope, console: Console) -> Tracking:
    """What the recipe's tracker hears, if it names one."""
    recipe, plan = scope.recipe, scope.plan
    if recipe.tracker is None:
        return Tracking(plan, scope.store)
    models = Models(scope.store, lambda: (recipe, plan), scope.folder, console)
    aloud = partial(say, console, style="yellow")
    return Tracking(plan, scope.store, teller(recipe.tracker, scope.folder, models, aloud))


def begin(tracking: Tracking, scope: Scope) -> None:
    """Open the tracker and keep the handle at once, so that a crash cannot lose it."""
    if scope.recipe.tracker is not None:
        tracking.begin(opened(scope.recipe, scope.plan, scope.made_by, scope.folder))
        keep_handle(tracking, scope)


def keep_handle(tracking: Tracking, scope: Scope) -> None:
    """Keep what the tracker finds the run by."""
    if scope.recipe.tracker is not None:
        remember(scope.recipe.tracker.name, tracking.handle, scope.recipe.name, scope.folder)
