"""Fields that can be added to what is stored already: at its neutral value a field changes no key.

    shift: Annotated[float, Neutral(1.0)] = Field(1.0, gt=0, description="...; 1 is off")

Every field enters the keys of stored work, so a new one would throw all of it away. A new field
therefore says which value means "as before this field existed": at that value no key holds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel


@dataclass(frozen=True)
class Neutral:
    """See the module's docstring; stands in the `Annotated` type of a field."""

    value: Any
    names_folders: bool = False
    """Whether the field is in the hash of run folders all the same: it was before there were
    neutral values. No new field sets this."""


def neutral(model: BaseModel, field: str) -> Neutral | None:
    """The field's marker if it has one and the field is at its neutral value."""
    info = type(model).model_fields.get(field)
    markers = [each for each in info.metadata if isinstance(each, Neutral)] if info else []
    return next((each for each in markers if getattr(model, field) == each.value), None)


def lean(value: Any, written: Any) -> Any:
    """`written`, which is `value` as JSON, without the fields that are not in the hash of a run
    folder, at any depth."""
    if isinstance(value, BaseModel) and isinstance(written, Mapping):
        held = dict(iter(value))  # not dict(value), which would ask a property called `keys`
        unnamed = {
            name for name in held if (marker := neutral(value, name)) and not marker.names_folders
        }
        return {
            name: lean(held.get(name), entry)
            for name, entry in written.items()
            if name not in unnamed
        }
    if isinstance(value, Mapping) and isinstance(written, Mapping):
        return {
            name: lean(*pair)
            for name, *pair in zip(written, value.values(), written.values(), strict=True)
        }
    if isinstance(value, list | tuple) and isinstance(written, list):
        return [lean(*pair) for pair in zip(value, written, strict=True)]
    return written
