"""Trainings that start from the weights of a finished run, or go on with its steps: whether they
can."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from safetensors import SafetensorError, safe_open

from fw.core.errors import MissingFile
from fw.core.files.weights import misfitting
from fw.core.randomness import forked
from fw.core.recipe.finding import Finding, location_of_section
from fw.core.recipe.model import Recipe


def unfit_start(recipe: Recipe, name: str) -> Iterator[Finding]:
    """Weights of another network than the arm's, as far as it is known before the run. No weights
    are made for it; files that are gone are for preflight to report."""
    arm = recipe.arm(name)
    spec = recipe.condition_spec(arm)
    shape = recipe.diffused_shape
    if arm.train.start is None or shape is None or (spec is None and arm.annotator is not None):
        return
    try:
        with safe_open(arm.train.start.found().file, "pt") as file:
            shapes = {each: file.get_slice(each).get_shape() for each in file.keys()}  # noqa: SIM118
        with torch.device("meta"), forked():
            network = arm.model.build(shape, spec)
    except (MissingFile, OSError, SafetensorError):
        return
    except Exception:  # a model that cannot be built like this says so in the run
        return
    if reason := misfitting(network, shapes):
        at = location_of_section(recipe, name, "train")
        yield Finding((*at, "from"), f"arm {name}: {arm.train.start} {reason}")


def other_process(recipe: Recipe) -> Iterator[Finding]:
    """Weights that were trained under another process, under which the same output of the network
    means something else."""
    for name in recipe.arms:
        arm = recipe.arm(name)
        start = arm.train.start
        if start is None:
            continue
        theirs, own = start.process, arm.process.identity()
        if theirs["name"] != own["name"]:
            yield Finding(
                ("arms", name),
                f"train.from: {start} was trained under process '{theirs['name']}', and this arm "
                f"is under '{own['name']}', where a network's output means something else",
            )
        elif apart := [key for key in own if key != "version" and own[key] != theirs.get(key)]:
            settings = ", ".join(f"{key}: {theirs.get(key)}" for key in apart)
            here = ", ".join(str(own[key]) for key in apart)
            yield Finding(
                ("arms", name),
                f"train.from: {start} was trained under process '{own['name']}' with {settings} "
                f"(here {here}), where a network's output may mean something else",
            )


def anew(recipe: Recipe) -> Iterator[Finding]:
    """Trainings that are to go on, and cannot, because of their online annotator."""
    for name in recipe.arms:
        arm = recipe.arm(name)
        if arm.train.keep is not None and arm.online is not None and arm.online.start > 0:
            yield Finding(
                ("arms", name),
                f"train.keep: annotator '{arm.online.name}' begins after a share of all steps "
                f"({arm.online.start:g}), so this training does not go on with more of them: it "
                "begins again",
            )
