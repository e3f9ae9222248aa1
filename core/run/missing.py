"""The missing stages of a plan, done without a run's record: `fw work`, the trials of a search, and
what `fw clusters` needs."""

from __future__ import annotations

from rich.console import Console

from fw.core.execution.executors import chosen
from fw.core.execution.options import Options
from fw.core.machine.stopping import stop_on_signals
from fw.core.plan.graph import Plan
from fw.core.recipe.model import Recipe
from fw.core.report import provenance
from fw.core.run.board import Board
from fw.core.run.preflight import preflight
from fw.core.store.at_work import at_work
from fw.core.store.soundness import usable_stages
from fw.core.store.store import Store


def finish(
    recipe: Recipe, plan: Plan, options: Options, console: Console, every_byte: bool = False
) -> None:
    """Do what is missing or damaged of a plan whose components are the recipe's, beside others that
    do. StageFailed if any of it fails, Interrupted if it is stopped.

    `every_byte`: compare all that is there, for whoever reads it all.
    """
    store = Store(options.store)
    store.create()
    with at_work(store, recipe.name, plan, plan):
        finished = usable_stages(plan, store, console, options.keep_dependents, every_byte)
        plugins = provenance.files(recipe)
        with chosen(options, plan, finished, plugins, console) as executor:
            preflight(plan, finished, executor.place)
            with stop_on_signals() as stopping, Board(plan, store, console) as board:
                outcome = executor.run(plan, finished, board, stopping)
    if (failure := outcome.failure(plan)) is not None:
        raise failure
