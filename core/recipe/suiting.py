"""What encoders leave to the images (`augment: auto`) is decided when a recipe is read, so that
keys, run folders and reports name what was chosen; and a warning where a recipe chose otherwise."""

from __future__ import annotations

from collections.abc import Iterator

from fw.core.kinds import Encoder
from fw.core.recipe.finding import Finding, Location, location_of_section
from fw.core.recipe.model import Recipe
from fw.registry import Component
from fw.registry.component import with_components


def suited(recipe: Recipe) -> Recipe:
    """The recipe with every encoder decided, however deep it stands. An `auto` and what it comes
    to are the same recipe."""

    def decided(component: Component) -> Component:
        return component.suited(shape) if isinstance(component, Encoder) else component

    shape = recipe.dataset.shape
    return with_components(recipe, decided)


def unsuited(recipe: Recipe) -> Iterator[Finding]:
    """Encoders whose fields are for other images than the recipe's, or for fewer; each once."""
    shape, images = recipe.dataset.shape, recipe.dataset.how_many("train")
    findings = (
        Finding(at, reason)
        for at, encoder in encoders(recipe)
        for reason in encoder.cautions(shape, images)
    )
    yield from dict.fromkeys(findings)


def encoders(recipe: Recipe) -> Iterator[tuple[Location, Encoder]]:
    """The encoders that are fitted, and where they are written."""
    for index, metric in enumerate(recipe.metrics):
        yield ("metrics", index), metric.space
    for name in recipe.arms:
        arm = recipe.arm(name)
        if arm.conditioner is not None:
            yield location_of_section(recipe, name, "encoder"), arm.conditioner
        for objective in arm.objectives:
            if objective.target is not None:
                yield location_of_section(recipe, name, "objectives"), objective.target
