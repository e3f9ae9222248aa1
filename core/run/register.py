"""`fw register`: an arm's model under a name in the registry of the recipe's tracker."""

from __future__ import annotations

from fw.core.errors import FwError
from fw.core.report.runfile import handle_in
from fw.core.run.finished import FinishedRun
from fw.core.run.journal import Journal


def register(run: FinishedRun, arm: str, name: str) -> str:
    """Register an arm's model; returns the address that the tracker loads it by. FwError if the
    tracker has no model of it."""
    recipe, record = run.recipe(), run.record()
    if recipe.tracker is None:
        raise FwError(f"{run.path}: its recipe has no tracker, so there is no registry")
    if arm not in recipe.arms:
        raise FwError(f"--arm {arm}: no such arm in {run.path} (known: {', '.join(recipe.arms)})")
    handle = handle_in(record, recipe.tracker.name)
    if handle is None or Journal(run.folder).pending():
        raise FwError(f"{run.path}: its tracker lacks a part of it: `fw sync {run.path}` first")
    return recipe.tracker.register(handle, run.root, arm, name)
