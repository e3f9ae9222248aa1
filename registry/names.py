"""What a recipe calls a field: its own name, unless that would be a word of Python (`from`)."""

from __future__ import annotations

from pydantic import BaseModel


def fields_by_key(model: type[BaseModel]) -> dict[str, str]:
    """The names of a model's fields, by the keys that they have in a recipe."""
    return {info.alias or name: name for name, info in model.model_fields.items()}
