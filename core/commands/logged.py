"""The recipe of a run as it was logged, with its own copies of local plugins: what a run's folder,
or a tracker's copy of its files, has of how it was made."""

from __future__ import annotations

from typing import Any

from fw.core.errors import FwError
from fw.core.recipe.loading import validate
from fw.core.recipe.model import Recipe
from fw.core.run.finished import FinishedRun
from fw.registry import LocalPlugin, UnfitPlugin, add_files, installed


def logged_recipe(run: FinishedRun, results: dict[str, Any]) -> Recipe:
    """The resolved recipe, without its tracker. The run's plugins are added to the installed ones.
    FwError if it is of other arms than the results."""
    run.sections(results)
    source = run.anchored()
    source.data["tracker"] = None
    try:
        add_files(installed(), logged_plugins(run))
    except UnfitPlugin as error:
        raise FwError(f"{run.path}: {error}") from None
    return validate(source, installed(), finished=True)


def logged_plugins(run: FinishedRun) -> list[LocalPlugin]:
    """The run's copies of local plugins; MLflow keeps them beside the recipe, not in a folder."""
    return run.plugins() or run.plugins(".")
