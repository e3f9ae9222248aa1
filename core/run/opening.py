"""How the recipe's tracker is opened for a run: with all that describes the run and its arms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fw.core.kinds import ArmDescription, RunDescription, TrackedRun
from fw.core.messages.plain import writing
from fw.core.plan.graph import ArmPlan, Plan
from fw.core.recipe.model import Recipe
from fw.core.report import provenance
from fw.core.report.collect import headline
from fw.core.report.environment import versions
from fw.core.report.runfile import handle_in
from fw.core.run.record import write_run
from fw.core.run.untracked import Untracked


def open_tracker(
    recipe: Recipe,
    plan: Plan,
    made_by: provenance.Record,
    folder: Path,
    previous: Mapping[str, Any],
) -> TrackedRun:
    """Open the recipe's tracker, if it names one, and remember the handle at once, so that a crash
    cannot lose it. `previous` is what run.json says until then."""
    if recipe.tracker is None:
        return Untracked()
    shared: dict[str, Any] = {
        "dataset": recipe.dataset,
        "samples": recipe.samples,
        "seed": recipe.seed,
    }
    if recipe.latents is not None:
        shared["latents"] = recipe.latents
    if recipe.probes:
        shared["probes"] = recipe.probes
    tracked = recipe.tracker.open(
        RunDescription(
            recipe=recipe.name,
            key=folder.name,
            folder=folder,
            root=folder.parents[1],
            baseline=recipe.baseline,
            headline=f"eval/{headline(recipe)}",
            arms=[
                ArmDescription(
                    name, {**arm_params(arm, shared), "label_free": str(recipe.label_free(arm.arm))}
                )
                for name, arm in plan.arms.items()
            ],
            tags={
                "fw.version": versions()["fw"],
                "fw.seed": str(recipe.seed),
                **provenance.tags(made_by),
            },
            previous=handle_in(previous, recipe.tracker.name),
        )
    )
    known = {**previous, "recipe": recipe.name, recipe.tracker.name: dict(tracked.handle)}
    try:
        with writing(folder):
            write_run(known, folder)
    except BaseException:
        tracked.end("killed")
        raise
    return tracked


def arm_params(arm: ArmPlan, shared: Mapping[str, Any]) -> dict[str, str]:
    """An arm's sections and the recipe's shared ones, flattened to dotted keys."""
    flat: dict[str, str] = {}
    sections = {section: getattr(arm.arm, section) for section in type(arm.arm).model_fields}
    for name, value in {**shared, **sections}.items():
        flatten(name, value, flat)
    return flat


def flatten(path: str, value: Any, flat: dict[str, str]) -> None:
    if hasattr(value, "spec"):
        value = value.spec()
    elif hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        for key, entry in value.items():
            flatten(f"{path}.{key}", entry, flat)
    elif isinstance(value, tuple) and value and hasattr(value[0], "spec"):
        for index, entry in enumerate(value):
            flatten(f"{path}.{index}", entry, flat)
    else:
        flat[path] = str(value)
