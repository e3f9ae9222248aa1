"""What is written when the stages are done: run.json, the report and the pictures."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fw.core.execution.executor import Outcome
from fw.core.files.durable import write_text
from fw.core.messages.plain import writing
from fw.core.messages.secrets import redact, redacted
from fw.core.report import markdown as page
from fw.core.report.collect import collect
from fw.core.report.curves import save_curves_figure, save_steps_picture
from fw.core.report.figures import save_arms_figure, save_sweep_figure
from fw.core.report.page.material import Material
from fw.core.report.page.write import PAGE, save_page
from fw.core.report.series import SWEEP, drawable, lines
from fw.core.report.snapshots import CURVES, grids_file, scored_arms
from fw.core.report.tables import figure_keys
from fw.core.report.warnings import indistinct, stage_warnings
from fw.core.run.record import describe, link_latest, recipe_key, write_run
from fw.core.run.scope import Scope
from fw.core.run.tracking import Tracking
from fw.core.store.soundness import disappeared, mixtures

FIGURE_KEYS = 4


def conclude(scope: Scope, outcome: Outcome, tracking: Tracking) -> dict[str, Any]:
    """Write the run's record, and show the tracker what it says; returns what run.json says."""
    describe(scope.recipe, scope.plugins, scope.folder)
    if not outcome.stopped:
        outcome.failed |= disappeared(scope.plan, scope.store, [*outcome.failed, *outcome.skipped])
    with writing(scope.folder):
        result = collected(scope, outcome.failed, tracking)
        write(result, scope)
    tracking.results(result, scope.folder, outcome.stopped)
    return result


def collected(scope: Scope, failed: Mapping[str, str], tracking: Tracking) -> dict[str, Any]:
    """What run.json says; of all arms, also those that `--arm` left for another time."""
    recipe, everything, store = scope.recipe, scope.everything, scope.store
    result = collect(recipe, everything, scope.made_by, store, failed)
    result["recipe_key"] = recipe_key(recipe, scope.plugins)
    result["begun_in"] = str(Path.cwd())
    result["classes"] = scope.class_names
    result["warnings"] = redacted(
        [
            *scope.warnings,
            *stage_warnings(everything, store),
            *mixtures(everything, store),
            *indistinct(result),
        ]
    )
    if recipe.tracker is not None and tracking.handle is not None:
        result[recipe.tracker.name] = tracking.handle
        result["look"] = redact(tracking.hint or "")
    for arm in result["arms"].values():
        if "error" in arm:
            arm["error"] = redact(arm["error"])
    return result


def write(result: Mapping[str, Any], scope: Scope) -> None:
    """Write run.json first, and then what is made of it."""
    folder = scope.folder
    write_run(result, folder)
    link_latest(folder)
    finished = {name: arm for name, arm in result["arms"].items() if arm["status"] == "finished"}
    for name in finished:
        grid = scope.store.path(scope.everything.arms[name].sample) / "grid.png"
        shutil.copyfile(grid, folder / f"samples-{name}.png")
    if finished:
        keys = figure_keys(result, FIGURE_KEYS)
        save_arms_figure(finished, keys, scope.recipe.baseline, folder / "arms.png")
    if drawable(result):
        drawn = lines(result, scope.recipe.resolved())
        keys = figure_keys(result, FIGURE_KEYS)
        save_sweep_figure(drawn, result["arms"], keys, scope.recipe.baseline, folder / SWEEP)
    write_snapshots(result, scope)
    write_text(folder / "report.md", page.markdown(result))
    plugins = [plugin.path.name for plugin in scope.plugins]
    save_page(Material(result, scope.recipe, scope.everything, scope.store, plugins), folder / PAGE)


def write_snapshots(result: Mapping[str, Any], scope: Scope) -> None:
    """The pictures of trainings on the way, where there are any."""
    arms = scored_arms(result)
    if not arms:
        return
    save_curves_figure(result, figure_keys(result, FIGURE_KEYS), scope.folder / CURVES)
    for name, entries in arms.items():
        scored = {entry["step"] for entry in entries}
        drawn = [
            snapshot.drawn
            for snapshot in scope.everything.arms[name].snapshots
            if snapshot.step in scored
        ]
        grids = [scope.store.path(sample.id) / "grid.png" for sample in drawn]
        count = drawn[0].samples.count
        save_steps_picture(grids, count, scope.folder / grids_file(name))
