"""What a recipe asks: which arm is to be better than which, and what else it has to stand
beside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import BeforeValidator, Field

from fw.core.settings import Section


def as_names(value: object) -> object:
    """A single name stands for a list of one."""
    return [value] if isinstance(value, str) else value


Names = Annotated[
    tuple[str, ...], BeforeValidator(as_names, json_schema_input_type=tuple[str, ...] | str)
]


class Question(Section):
    """`{better: self_1.5, than: unconditional}`; every field names arms of the recipe."""

    better: str = Field(description="the arm that the recipe is about")
    than: str | None = Field(
        None, description="the arm that it is to be better than; null is the baseline"
    )
    controls: Names = Field((), description="arms whose conditions mean nothing")
    ablations: Names = Field((), description="arms that lack a part of the method")
    reference: str | None = Field(
        None, description="an arm that has more to go by, such as true labels"
    )

    @property
    def named(self) -> Iterator[tuple[str, str]]:
        """Every field and the arm that it names."""
        yield "better", self.better
        if self.than is not None:
            yield "than", self.than
        yield from (("controls", name) for name in self.controls)
        yield from (("ablations", name) for name in self.ablations)
        if self.reference is not None:
            yield "reference", self.reference
