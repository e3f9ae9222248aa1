"""The fields of a component in words: what a recipe may write there, and within which bounds."""

from __future__ import annotations

import enum
import json
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as at
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fw.core.recipe.source import StrictDumper
from fw.registry import Component

WORDS: Mapping[Any, str] = {str: "text", Path: "path", type(None): "null", Any: "anything"}
BOUNDS: Mapping[type, tuple[str, str]] = {
    at.Ge: (">=", "ge"),
    at.Gt: (">", "gt"),
    at.Le: ("<=", "le"),
    at.Lt: ("<", "lt"),
    at.MultipleOf: ("multiple of", "multiple_of"),
    at.MinLen: ("length >=", "min_length"),
    at.MaxLen: ("length <=", "max_length"),
}


def type_in_words(annotation: Any) -> str:
    """`int`, `float or null`, `one of conv, resnet18`, `encoder`, `tuple of int`, `mapping of
    text to float`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__value__"):  # `type Size = int`, from Python 3.12 on
        return type_in_words(annotation.__value__)
    if origin is Annotated:
        return type_in_words(inner[0])
    if origin is Literal:
        return f"one of {', '.join(map(inline, inner))}"
    if is_union(origin):
        return " or ".join(dict.fromkeys(type_in_words(each) for each in null_last(inner)))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"mapping of {type_in_words(inner[0])} to {type_in_words(inner[1])}"
    if origin is tuple and inner[-1:] != (...,):
        return f"tuple of ({', '.join(map(type_in_words, inner))})"
    if isinstance(origin, type) and issubclass(origin, Iterable):
        return f"{origin.__name__.lower()} of {type_in_words(inner[0])}"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return f"one of {', '.join(inline(each.value) for each in annotation)}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not issubclass(annotation, Component) or not annotation.chosen_by_name():
            return "mapping"
        return annotation.kind if annotation.is_kind() else annotation.__name__.lower()
    return WORDS.get(annotation) or str(getattr(annotation, "__name__", annotation))


def is_union(origin: Any) -> bool:
    return origin in (Union, types.UnionType)


def null_last(inner: Iterable[Any]) -> list[Any]:
    return sorted(inner, key=lambda each: each is type(None))


def inline(value: Any) -> str:
    """The value as a recipe writes it, in one line: `null`, `[16, 32]`, `{name: pca, dims: 8}`."""
    text = yaml.dump(
        [value], Dumper=StrictDumper, sort_keys=False, default_flow_style=True, width=float("inf")
    )[1:-2]
    return json.dumps(value) if "\n" in text else text


def bounds_in_words(info: FieldInfo) -> list[str]:
    """`>= 1`, `multiple of 4`, `length >= 1`, and `each >= 1` for what is in a tuple."""
    return [
        *(words for mark in info.metadata for words in bound(mark)),
        *bounds_within(info.annotation, ""),
    ]


def bound(mark: Any) -> Iterator[str]:
    """The bound that one mark of an `Annotated` type or a `Field` sets, if any."""
    for kind, (words, name) in BOUNDS.items():
        if isinstance(mark, kind):
            yield f"{words} {getattr(mark, name)}"
    if isinstance(mark, FieldInfo):
        for each in mark.metadata:
            yield from bound(each)
    elif isinstance(mark, at.GroupedMetadata):
        for each in mark:
            yield from bound(each)
    elif pattern := getattr(mark, "pattern", None):
        yield f"matches {getattr(pattern, 'pattern', pattern)}"


def bounds_within(annotation: Any, whose: str) -> Iterator[str]:
    """The bounds of `Annotated` types inside an annotation; `whose` says for what in the field
    they hold."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from (f"{whose}{words}" for mark in inner[1:] for words in bound(mark))
        yield from bounds_within(inner[0], whose)
    elif is_union(origin):
        for each in inner:
            yield from bounds_within(each, whose)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        yield from bounds_within(inner[0], f"{whose}keys ")
        yield from bounds_within(inner[1], f"{whose}values ")
    elif origin is not Literal:
        for each in dict.fromkeys(inner):
            yield from bounds_within(each, f"{whose}each ")
