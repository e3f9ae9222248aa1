"""Where the relative paths of a recipe begin: in the folder where its run was begun, wherever it is
read later."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from fw.core.recipe.loading import model_at
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import Source
from fw.registry import Registry
from fw.registry.names import fields_by_key


def anchor(source: Source, folder: Path, registry: Registry) -> None:
    """Make paths that lead somewhere from this folder lead there from everywhere; the others stay
    as they are."""
    for holder, key in list(paths(Recipe, source.data, registry)):
        if (there := folder / holder[key]).exists():
            holder[key] = str(there)


def paths(annotation: Any, data: Any, registry: Registry) -> Iterator[tuple[Any, Any]]:
    """Each path in the raw data: the mapping or list that holds it, and its key or place there."""
    if isinstance(data, list):
        held = dict.fromkeys(range(len(data)), annotation)
    elif isinstance(data, dict) and get_origin(annotation) is dict:
        held = dict.fromkeys(data, get_args(annotation)[1])
    elif isinstance(data, dict) and (model := model_at(annotation, data, registry)) is not None:
        held = {
            key: model.model_fields[field].annotation
            for key, field in fields_by_key(model).items()
            if key in data
        }
    else:
        return
    for key, kind in held.items():
        if isinstance(data[key], str) and takes_path(kind):
            yield data, key
        else:
            yield from paths(kind, data[key], registry)


def takes_path(annotation: Any) -> bool:
    """Whether a field is a path, or may be one."""
    return annotation is Path or any(map(takes_path, get_args(annotation)))
