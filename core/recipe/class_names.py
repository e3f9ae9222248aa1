"""Class names in a recipe become class numbers, so that both ways of writing are the same
recipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fw.core.kinds import Guidance, Steering
from fw.core.recipe.finding import Finding
from fw.core.recipe.model import Recipe


class Numbered(NamedTuple):
    """The recipe with numbers in the place of names, and a fault for each name that is no class."""

    recipe: Recipe
    faults: list[Finding]


def numbered(recipe: Recipe) -> Numbered:
    names = (
        recipe.dataset.class_names if any(names_classes(each) for each in entries(recipe)) else ()
    )
    faults: list[Finding] = []

    def replaced(guidance: Sequence[Steering], at: tuple[str, ...]) -> tuple[Steering, ...]:
        modes = []
        for index, mode in enumerate(guidance):
            if isinstance(mode, Guidance) and names_classes(mode):
                try:
                    mode = mode.numbered(names)
                except ValueError as error:
                    faults.append(Finding((*at, index), str(error)))
            modes.append(mode)
        return tuple(modes)

    for name, override in recipe.arms.items():
        arm = recipe.arm(name)
        if not arm.classes_are_labels and any(map(names_classes, arm.guidance)):
            at = (
                ("arms", name, "guidance")
                if "guidance" in override.model_fields_set
                else ("arms", name)
            )
            faults.append(
                Finding(
                    at, "a class has a name only where the conditions are labels; give its number"
                )
            )
    update: dict[str, object] = {}
    if any(map(names_classes, recipe.guidance)):
        update["guidance"] = replaced(recipe.guidance, ("guidance",))
    if any(names_classes(mode) for override in recipe.arms.values() for mode in override.guidance):
        update["arms"] = {
            name: override.model_copy(
                update={"guidance": replaced(override.guidance, ("arms", name, "guidance"))}
            )
            if any(map(names_classes, override.guidance))
            else override
            for name, override in recipe.arms.items()
        }
    return Numbered(recipe.model_copy(update=update) if update else recipe, faults)


def entries(recipe: Recipe) -> Iterator[Steering]:
    yield from recipe.guidance
    for override in recipe.arms.values():
        yield from override.guidance


def names_classes(mode: Steering) -> bool:
    return isinstance(mode, Guidance) and mode.names_classes


def numbered_names(names: Sequence[str], most: int = 10) -> str:
    """`0 = cat, 1 = dog, and 8 more`, for messages."""
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"{number} = {name}" for number, name in enumerate(names[:most])) + more
