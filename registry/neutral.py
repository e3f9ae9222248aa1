"""Fields that can be added to what is stored already: at its neutral value a field changes no key.

    shift: Annotated[float, Neutral(1.0)] = Field(1.0, gt=0, description="...; 1 is off")

Every field enters the keys of stored work, so a new one would throw all of it away. A new field
therefore says which value means "as before this field existed": at that value no key holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from fw.registry.names import fields_by_key

ANY = object()
"""A value for `Neutral`: the field changes no result, whatever it is, so it is in no key."""


@dataclass(frozen=True)
class Neutral:
    """See the module's docstring; stands in the `Annotated` type of a field."""

    value: Any
    names_folders: bool = False
    """Whether the field is in the hash of run folders all the same: it was before there were
    neutral values. No new field sets this."""


def neutral(model: BaseModel, field: str) -> Neutral | None:
    """The field's marker if it has one and the field is at its neutral value, or at any."""
    info = type(model).model_fields.get(field)
    markers = [each for each in info.metadata if isinstance(each, Neutral)] if info else []
    return next(
        (each for each in markers if each.value is ANY or getattr(model, field) == each.value),
        None,
    )


Walk = Callable[[Any, Any], Any]
"""A value and what it is as JSON, to that JSON without what is to be left out."""


def lean(value: Any, written: Any) -> Any:
    """`written`, which is `value` as JSON, without the fields that are not in the hash of a run
    folder, at any depth."""
    if isinstance(value, BaseModel) and isinstance(written, Mapping):
        return kept_fields(value, written, lean, lambda marker: not marker.names_folders)
    return inside(value, written, lean)


def kept_fields(
    model: BaseModel, written: Mapping[str, Any], walk: Walk, left_out: Callable[[Neutral], bool]
) -> dict[str, Any]:
    """The fields of a model, each walked, but those whose marker at its neutral value is left
    out."""
    held = dict(iter(model))  # not dict(model), which would ask a property called `keys`
    fields = fields_by_key(type(model))
    return {
        key: walk(held.get(fields.get(key, key)), entry)
        for key, entry in written.items()
        if (marker := neutral(model, fields.get(key, key))) is None or not left_out(marker)
    }


def inside(value: Any, written: Any, walk: Walk) -> Any:
    """The entries of a mapping or a list, each walked; anything else as it is written."""
    if isinstance(value, Mapping) and isinstance(written, Mapping):
        pairs = zip(value.values(), written.values(), strict=True)
        return dict(zip(written, (walk(*pair) for pair in pairs), strict=True))
    if isinstance(value, list | tuple) and isinstance(written, list):
        return [walk(*pair) for pair in zip(value, written, strict=True)]
    return written
