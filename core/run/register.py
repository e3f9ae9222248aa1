"""`fw register`: an arm's model under a name in the registry of the recipe's tracker."""

from __future__ import annotations

from fw.core.errors import FwError
from fw.core.report.runfile import handle_in
from fw.core.run.finished import FinishedRun, checked_training
from fw.core.run.journal import Journal
from fw.core.run.tracking import logged_name


def register(run: FinishedRun, arm: str, training: int | None, name: str) -> str:
    """Register the model of an arm's training, by default the first; returns the address that the
    tracker loads it by. FwError if the tracker has no model of it."""
    recipe, record = run.recipe(), run.record()
    if recipe.tracker is None:
        raise FwError(f"{run.path}: its recipe has no tracker, so there is no registry")
    if arm not in recipe.arms:
        raise FwError(f"--arm {arm}: no such arm in {run.path} (known: {', '.join(recipe.arms)})")
    handle = handle_in(record, recipe.tracker.name)
    if handle is None or Journal(run.folder).pending():
        raise FwError(f"{run.path}: its tracker lacks a part of it: `fw sync {run.path}` first")
    seed = recipe.seed if training is None else checked_training(recipe, training)
    logged = logged_name(arm, seed if recipe.repeats > 1 else None)
    return recipe.tracker.register(handle, run.root, logged, name)
