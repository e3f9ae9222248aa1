"""Label-freeness across trainings: what follows from labels that weights have seen before fw.

An arm is label-free if none of its components is given labels and none brings weights that were
trained with any. Guidance that claims conditions made without labels is refused where the weights
that make them have seen labels, and warned about where these have seen captions, or nobody says
what. Labels that reach a denoiser in another way spoil no condition: they are warned about.
"""

from __future__ import annotations

from collections.abc import Iterator

from fw.core.kinds import Brought
from fw.core.recipe.arm import Arm
from fw.core.recipe.finding import Finding, Location, location_in_arm, location_of_section
from fw.core.recipe.model import Recipe

MAKE_CONDITIONS = {"dataset", "encoder", "annotator", "prior"}
"""The sections that conditions are made of."""
MAKE_ONLINE_CONDITIONS = MAKE_CONDITIONS | {"latents", "model", "objectives"}
"""The same where they are made of the denoiser's own features."""


def label_faults(recipe: Recipe) -> Iterator[Finding]:
    """Claims that an arm's conditions do not keep."""
    for name in recipe.arms:
        at = location_in_arm(recipe, name, "guidance")
        for claim in claims(recipe.arm(name)):
            for _, brought in weights(recipe, name, of_conditions=True):
                if brought.supervision.kind == "labels":
                    yield Finding(
                        at,
                        f"{claim}, and {brought}: take weights that have seen none, or guidance "
                        "that makes no such claim, such as cfg",
                    )


def label_cautions(recipe: Recipe) -> Iterator[Finding]:
    """Claims that may not be kept, and labels that reach denoisers; each place and reason once."""
    found = (each for name in recipe.arms for each in arm_cautions(recipe, name))
    yield from dict.fromkeys(found)


def arm_cautions(recipe: Recipe, name: str) -> Iterator[Finding]:
    arm = recipe.arm(name)
    for claim in claims(arm):
        for _, brought in weights(recipe, name, of_conditions=True):
            at = location_in_arm(recipe, name, "guidance")
            yield Finding(at, f"{claim}, and {brought}{remedy(brought)}")
    for at, brought in weights(recipe, name, of_conditions=False):
        if brought.supervision.kind == "labels" and not arm.given_labels:
            yield Finding(at, f"{brought}: no arm with them is label-free")
        elif brought.supervision.kind != "labels" and claims(arm):
            yield Finding(at, f"{brought}: an arm with them may not be label-free{remedy(brought)}")


def weights(recipe: Recipe, name: str, of_conditions: bool) -> Iterator[tuple[Location, Brought]]:
    """The weights from before fw that may have seen labels, and where they are named: those that
    make the arm's conditions, or the others."""
    arm = recipe.arm(name)
    make = MAKE_CONDITIONS if arm.online is None else MAKE_ONLINE_CONDITIONS
    shared = [(section, (section,), brought) for section, brought in recipe.shared_weights]
    own = [
        (section, location_of_section(recipe, name, section), brought)
        for section, brought in arm.brought
    ]
    for section, at, brought in (*shared, *own):
        if (section in make) == of_conditions and brought.supervision.kind != "nothing":
            yield at, brought


def claims(arm: Arm) -> list[str]:
    """That a component claims conditions made without labels, for each that does."""
    return [
        f"{component.kind} '{component.name}' claims conditions that were made without labels"
        for _, component in arm.sections
        if "label_free" in component.requires
    ]


def remedy(brought: Brought) -> str:
    """How a recipe says what nobody knows of these weights, if it can."""
    says = "supervision" in type(brought.part).model_fields
    unknown = brought.supervision.kind == "unknown"
    return "; if you know it, say it as `supervision`" if says and unknown else ""
