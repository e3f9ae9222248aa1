"""Read a recipe file and report all that is wrong with it: file, line, path, reason and the
nearest right word."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from fw.core.recipe.checks import faults, idle
from fw.core.recipe.class_names import Numbered, numbered
from fw.core.recipe.label_free import label_faults
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import PROBLEMS, Source, read, refused
from fw.core.recipe.suiting import suited
from fw.registry import Component, Registry, installed
from fw.registry.names import fields_by_key


def load(path: Path, assignments: Sequence[str] = (), registry: Registry | None = None) -> Recipe:
    """Read, override and validate a recipe file; RecipeError names every fault with its line."""
    source = read(path)
    source.set(assignments)
    return validate(source, registry or installed())


def validate(
    source: Source, registry: Registry, whole: bool = True, finished: bool = False
) -> Recipe:
    """Turn a source into a recipe, or raise RecipeError with all problems at once.

    `whole` is false for a recipe without some of its arms: then metrics and probes may be for
    those. One of a run that is `finished` is read whatever it claims to be free of.
    """
    recipe, unknown = understood(source, registry)
    findings = [
        *unknown,
        *faults(recipe),
        *(idle(recipe) if whole else ()),
        *(() if finished else label_faults(recipe)),
    ]
    if findings:
        raise refused(
            [f"{source.where(at)}: {source.path(at)}: {reason}" for at, reason in findings]
        )
    return recipe


def understood(source: Source, registry: Registry) -> Numbered:
    """What a source says, and the names in it that mean nothing, without a look at whether it fits
    together; RecipeError with all problems at once."""
    try:
        recipe = Recipe.model_validate(source.data, context={"registry": registry})
    except ValidationError as error:
        errors = error.errors(include_url=False)
        problems = [explain(dict(problem), source, registry) for problem in errors[:PROBLEMS]]
        raise refused(problems, len(errors)) from None
    return numbered(suited(recipe))


def explain(problem: dict[str, Any], source: Source, registry: Registry) -> str:
    """One pydantic error as `file:line: path: reason`."""
    location = problem["loc"]
    if location and location[-1] == "[key]":
        location = location[:-1]
    reason = problem["msg"][0].lower() + problem["msg"][1:]
    where = source.where(location)
    if problem["type"] == "extra_forbidden":
        known = known_keys(location[:-1], source.data, registry)
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        suggestion = f"; did you mean '{near[0]}'?" if near else ""
        reason = f"unknown key{suggestion} (known: {', '.join(known)})"
    elif problem["type"] == "missing":
        place = location[-1]
        missing = f"entry {place + 1} of the list" if isinstance(place, int) else "this key"
        reason = f"{missing} is required"
    elif problem["type"] == "model_type":
        reason = f"expected a mapping of keys (it is {problem['input']!r})"
    elif problem["type"] == "value_error":
        reason = problem["msg"].removeprefix("Value error, ")
    elif problem["type"] == "unknown_component":
        where = source.where((*location, "name"))
        if not registry.files and "did you mean" not in reason:
            reason += "; for one in a file of yours, add --plugin FILE.py"
    elif isinstance(problem["input"], str | int | float | bool):
        reason += f" (it is {problem['input']!r})"
    return f"{where}: {source.path(location)}: {reason}"


def known_keys(location: Sequence[str | int], data: Any, registry: Registry) -> list[str]:
    """The keys that may stand at a location of the raw data."""
    annotation: Any = Recipe
    for part in location:
        model = model_at(annotation, data, registry)
        if get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
        elif model is not None and part in (fields := fields_by_key(model)):
            annotation = model.model_fields[fields[str(part)]].annotation
        with contextlib.suppress(
            LookupError, TypeError
        ):  # a single entry stands for a list, a name for a component
            data = data[part]
    model = model_at(annotation, data, registry)
    if model is None:
        return []
    keys = ["name"] if issubclass(model, Component) else []
    return keys + list(fields_by_key(model))


def model_at(annotation: Any, data: Any, registry: Registry) -> type[BaseModel] | None:
    """The model that the data is read as: for a kind, the component that the data names."""
    model = field_model(annotation)
    if model is not None and issubclass(model, Component) and model.chosen_by_name():
        return (
            registry.components.get((model.kind, str(data.get("name"))))
            if isinstance(data, Mapping)
            else None
        )
    return model


def field_model(annotation: Any) -> type[BaseModel] | None:
    """The model inside `Model`, `Model | None`, `tuple[Model, ...]` or `dict[str, Model]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for inner in get_args(annotation) if (model := field_model(inner))), None)
