"""Something that is wrong with a recipe or misleading, and where it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fw.core.recipe.model import Recipe

Location = tuple[str | int, ...]


class Finding(NamedTuple):
    """Something wrong or misleading, and the location of the recipe's entry to change."""

    location: Location
    reason: str

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.location))}: {self.reason}"


def location_in_arm(recipe: Recipe, arm: str, section: str) -> Location:
    """A section of an arm, or the arm if it has that section from the recipe."""
    own = section in recipe.arms[arm].model_fields_set
    return ("arms", arm, section) if own else ("arms", arm)


def location_of_section(recipe: Recipe, arm: str, section: str) -> Location:
    """A section of an arm where it is written: in the arm, or once for all arms."""
    own = section in recipe.arms[arm].model_fields_set
    return ("arms", arm, section) if own else (section,)


def misfit(location: Location, check: Callable[..., object], *given: Any) -> Iterator[Finding]:
    """The fault that a component finds in what it is given."""
    try:
        check(*given)
    except ValueError as error:
        yield Finding(location, str(error))
