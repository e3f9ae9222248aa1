"""Whether there are enough images for the components of a recipe, where the data set says how
many it has."""

from __future__ import annotations

from collections.abc import Iterator

from fw.core.recipe.arm import Arm
from fw.core.recipe.finding import Finding, Location, location_of_section, misfit
from fw.core.recipe.model import Recipe


def shortages(recipe: Recipe) -> Iterator[Finding]:
    """Components that need more images than there are."""
    train, held_out = recipe.dataset.how_many("train"), recipe.dataset.how_many("test")
    arms = {name: recipe.arm(name) for name in recipe.arms}
    for index, metric in enumerate(recipe.metrics):
        there = {
            "training images": train,
            "held-out images": held_out,
            "samples (samples.count)": recipe.samples.count,
        }
        few = recipe.samples.of_snapshots
        if few is not None and any(arm.train.snapshots for arm in arms.values()):
            there["samples (samples.snapshots)"] = few.count
        if any(arm.scored_by(metric) for arm in arms.values()):
            for what, count in there.items():
                yield from short(
                    ("metrics", index), f"metric '{metric.name}'", metric.least_images, count, what
                )
            yield from short(
                ("metrics", index),
                f"encoder '{metric.space.name}'",
                metric.space.least_images,
                train,
            )
    for index, probe in enumerate(recipe.probes):
        if any(arm.probed_by(probe) for arm in arms.values()):
            yield from short(("probes", index), f"probe '{probe.name}'", probe.least_images, train)
            if 0 < recipe.dataset.classes < probe.least_classes:
                reason = (
                    f"probe '{probe.name}' needs {probe.least_classes} classes of labels or more"
                )
                yield Finding(
                    ("probes", index), f"{reason}, and there are {recipe.dataset.classes}"
                )
    for name, arm in arms.items():
        for section, who, least in requirements(arm):
            yield from short(location_of_section(recipe, name, section), who, least, train)
        if arm.online is not None:
            yield from misfit(
                location_of_section(recipe, name, "annotator"),
                arm.online.check_batch,
                arm.train.batch,
            )


def requirements(arm: Arm) -> Iterator[tuple[str, str, int]]:
    """How many training images an arm's components need: the section, the component and the
    number."""
    if arm.conditioner is not None:
        yield "encoder", f"encoder '{arm.conditioner.name}'", arm.conditioner.least_images
    if arm.annotator is not None:
        yield "annotator", f"annotator '{arm.annotator.name}'", arm.annotator.least_images
    for objective in arm.objectives:
        if objective.target is not None:
            yield "objectives", f"encoder '{objective.target.name}'", objective.target.least_images


def short(
    at: Location, who: str, least: int, count: int | None, what: str = "training images"
) -> Iterator[Finding]:
    if count is not None and count < least:
        yield Finding(at, f"{who} needs {least:,} {what} or more, and there are {count:,}")


def cautions(recipe: Recipe) -> Iterator[Finding]:
    """Numbers with which the recipe runs, but which mean something else than one may think."""
    train, classes = recipe.dataset.how_many("train"), recipe.dataset.classes
    if train is None:
        return
    for index, probe in enumerate(recipe.probes):
        if reason := probe.caution(train, classes):
            yield Finding(("probes", index), reason)
    reasons = {}
    for name in recipe.arms:
        arm = recipe.arm(name)
        if arm.annotator is not None and (reason := arm.annotator.caution(train, classes)):
            reasons[location_of_section(recipe, name, "annotator")] = reason
        if arm.train.batch > train:
            reasons[(*location_of_section(recipe, name, "train"), "batch")] = (
                f"a batch of {arm.train.batch:,} is more than the {train:,} training images: a "
                "step sees some of them more than once"
            )
    yield from (Finding(at, reason) for at, reason in reasons.items())
