"""What a run's tracker is opened with: all that describes the run and its arms, and a thread that
tells it the rest."""

from __future__ import annotations

import getpass
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fw.core.kinds import ArmDescription, TrackedRun, Tracker
from fw.core.messages.secrets import redact, without_secrets
from fw.core.plan.graph import ArmPlan, Plan
from fw.core.recipe.model import Recipe
from fw.core.report import provenance
from fw.core.report.collect import directions, headline
from fw.core.report.environment import versions
from fw.core.report.runfile import handle_in
from fw.core.run.calls import Opened
from fw.core.run.journal import Journal
from fw.core.run.models import Models
from fw.core.run.record import previous_run
from fw.core.run.telling import Teller
from fw.core.run.tracking import names_of_trainings
from fw.core.stages.keys import digest, identity


def opened(recipe: Recipe, plan: Plan, made_by: provenance.Record, folder: Path) -> Opened:
    """The run, for its tracker. FwError if the tracker's address is none."""
    assert recipe.tracker is not None
    shared: dict[str, Any] = {
        "dataset": recipe.dataset,
        "samples": recipe.samples,
        "seed": recipe.seed,
    }
    if recipe.latents is not None:
        shared["latents"] = recipe.latents
    if recipe.probes:
        shared["probes"] = recipe.probes
    return Opened(
        tracker=without_secrets(recipe.tracker.settled(folder.parents[1]).spec()),
        recipe=recipe.name,
        key=folder.name,
        baseline=recipe.baseline,
        headline=f"eval/{headline(recipe)}",
        better=directions(recipe)[headline(recipe)],
        arms=[
            list(each)
            for name, arm in plan.arms.items()
            for each in arm_descriptions(recipe, name, arm, shared)
        ],
        tags={
            "fw.version": versions()["fw"],
            "fw.seed": str(recipe.seed),
            "fw.dataset": f"{recipe.dataset.name} {digest(identity(recipe.dataset))}",
            **sweep_tags(recipe),
            **made_where(),
            **provenance.tags(made_by),
        },
    )


def arm_descriptions(
    recipe: Recipe, name: str, arm: ArmPlan, shared: Mapping[str, Any]
) -> list[ArmDescription]:
    """An arm and, where it is trained with several seeds, its trainings."""
    label_free = {"label_free": str(recipe.label_free(arm.arm))}
    params = {**arm_params(arm, shared), **label_free}
    return [
        ArmDescription(name, params),
        *(
            ArmDescription(training, {**params, "seed": str(seed)}, name)
            for seed, training in names_of_trainings(name, arm).items()
        ),
    ]


def sweep_tags(recipe: Recipe) -> dict[str, str]:
    """Of a sweep: its kind, which keys it is over, and whether its best point is only exploratory.
    The keys are params of the arms."""
    if recipe.sweep is None:
        return {}
    tags = {"fw.sweep": recipe.sweep.kind, "fw.sweep.over": " ".join(recipe.sweep.over)}
    return tags | ({"fw.exploratory": "yes"} if recipe.sweep.kind == "search" else {})


def made_where() -> dict[str, str]:
    """Who runs it, by which command, and at which commit of the folder where it is run."""
    facts = {"fw.user": user(), "fw.command": redact(" ".join(["fw", *sys.argv[1:]]))}
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=5,
            check=True,
        )
        facts["fw.commit"] = answer.stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git, or no repository
        pass
    return {key: value for key, value in facts.items() if value}


def user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a number without a name, as in a container
        return ""


def teller(tracker: Tracker, folder: Path, models: Models, said: Callable[[str], object]) -> Teller:
    """What tells the tracker of the run in this folder; `said` hears of its outages."""

    def opening(run: Opened) -> TrackedRun:
        previous = handle_in(previous_run(folder), tracker.name)
        return tracker.open(run.description(folder, previous))

    return Teller(Journal(folder), opening, models, said, tracker.watching)


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
