"""What is wrong or misleading in a recipe, and where it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fw.core.recipe.model import Recipe

Location = tuple[str | int, ...]


class Finding(NamedTuple):
    """What is wrong or misleading, and the location of the recipe's entry to change."""

    location: Location
    reason: str

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.location))}: {self.reason}"


def location_in_arm(recipe: Recipe, arm: str, section: str) -> Location:
    """Where an arm's section is written in the arm; the arm itself, if it takes the recipe's
    section."""
    own = section in recipe.arms[arm].model_fields_set
    return ("arms", arm, section) if own else ("arms", arm)


def location_of_section(recipe: Recipe, arm: str, section: str) -> Location:
    """Where an arm's section is written: in the arm, or once for all arms."""
    own = section in recipe.arms[arm].model_fields_set
    return ("arms", arm, section) if own else (section,)


def in_yaml(value: object) -> str:
    """A field's value as a recipe has it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def misfit(location: Location, check: Callable[..., object], *arguments: Any) -> Iterator[Finding]:
    """The ValueError of a component's check, as a finding."""
    try:
        check(*arguments)
    except ValueError as error:
        yield Finding(location, str(error))
