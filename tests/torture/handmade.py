"""Recipes with one value out of range: every section and every field of every component in turn."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

HUGE = 10**30

OUT_OF_RANGE: Mapping[Any, tuple[Any, ...]] = {
    int: (-1, HUGE, "many"),
    float: (-1.0, 1e308, float("nan")),
    bool: ("maybe",),
    str: ("", "\x1b[31m<b>\n"),
    Path: ("", "a\0b"),
    list: ([], ["nothing"], {"a": 1}),
    BaseModel: ("nothing", {"name": 3}, [[]]),
    None: ("nothing", [None], -1),
}
"""By what a field is; None stands for all others."""

BY_HAND: tuple[tuple[str, Any], ...] = (
    ("seed", 2**64),
    ("seed", -(2**63)),
    ("model.channels", [HUGE, 16]),
    ("model.channels", [0]),
    ("model.channels", [8] * 1000),
    ("train.lr", 1e308),
    ("train.lr", 5e-324),
    ("train.steps", 2**63),
    ("train.batch", 2**40),
    ("samples.count", HUGE),
    ("samples.seeds", 2**31),
    ("annotator.clusters", 10**9),
    ("baseline", "nobody"),
    ("baseline", "x" * 100_000),
    ("name", ".."),
    ("name", "store"),
    ("name", "a/b"),
    ("name", "é" * 300),
    ("arms", {}),
    ("arms", {"a" * 250: {}}),
    ("arms", {"..": {}}),
    ("arms", {"a b": {}}),
    ("arms", {str(number): {} for number in range(2000)}),
    ("arms", [1, 2]),
    ("metrics", []),
    ("metrics", ["fd"] * 500),
    ("metrics", [{"name": "fd", "space": {"name": "fd"}}]),
    ("metrics", [{"name": "prdc", "k": 10**9}]),
    ("fw", 2),
    ("fw", "1"),
    ("guidance", [{"name": "self_guidance"}] * 200),
    ("guidance", {"name": "self_guidance", "scale": 1e308, "interval": [1000, 2000]}),
    ("guidance", {"name": "self_guidance", "interval": [2, 1]}),
    ("guidance", {"name": "pag", "layers": ["nothing"]}),
    ("guidance", {"name": "negative", "condition": 10**6}),
    ("tracker", {"name": "mlflow", "uri": "\0"}),
    ("tracker", {"name": "mlflow", "uri": "sqlite:////proc/nowhere"}),
    ("tracker", {"name": "mlflow", "experiment": ".."}),
    ("dataset", {"name": "shapes", "size": 0}),
    ("dataset", {"name": "image_folder", "root": "/dev/null", "size": 8}),
    ("dataset", {"name": "image_folder", "root": "/proc/self", "size": 8, "held_out": 0.5}),
    ("dataset", None),
)
"""Entries of a recipe, and values that somebody tried."""


def recipes(base: str) -> Iterator[tuple[str, str]]:
    """(what is wrong, text) for each; `base` is the text of a recipe that is right."""
    yield from ((f"{path} = {short(value)}", changed(base, path, value)) for path, value in table())


def table() -> Iterator[tuple[str, Any]]:
    """(path, value) for every section and for every field of every component."""
    from fw.core.recipe.model import Recipe
    from fw.core.settings import Samples, Train
    from fw.registry import installed
    from fw.registry.names import fields_by_key

    yield from BY_HAND
    for prefix, model in (("", Recipe), ("train.", Train), ("samples.", Samples)):
        for key, field in fields_by_key(model).items():
            annotation = model.model_fields[field].annotation
            yield from ((prefix + key, value) for value in values(annotation))
    for (kind, name), component in sorted(installed().components.items()):
        if kind not in PLACES:
            continue
        required = {
            field: plain(info.examples[0])
            for field, info in component.model_fields.items()
            if info.is_required() and info.examples
        }
        for field, info in component.model_fields.items():
            for value in values(info.annotation):
                entry = {"name": name, **required, field: value}
                yield PLACES[kind], [entry] if kind in LISTED else entry


PLACES = {
    "annotator": "annotator",
    "autoencoder": "latents",
    "backbone": "model",
    "dataset": "dataset",
    "encoder": "encoder",
    "guidance": "guidance",
    "metric": "metrics",
    "objective": "objectives",
    "prior": "prior",
    "probe": "probes",
    "process": "process",
    "sampler": "sampler",
    "tracker": "tracker",
}
"""Where a recipe names a component of a kind."""

LISTED = ("guidance", "metric", "objective", "probe")


def values(annotation: Any) -> tuple[Any, ...]:
    return OUT_OF_RANGE[sort_of(annotation)]


def sort_of(annotation: Any) -> Any:
    """The key of OUT_OF_RANGE for a field's type; of a union, for the first that is known."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return sort_of(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        found = [sort_of(each) for each in get_args(annotation) if each is not type(None)]
        return next((each for each in found if each is not None), None)
    if origin in (tuple, list, dict):
        return list
    if origin is Literal or not isinstance(annotation, type):
        return None
    known = (each for each in OUT_OF_RANGE if isinstance(each, type) and each is not int)
    if issubclass(annotation, int) and annotation is not bool:
        return int
    return next((each for each in known if issubclass(annotation, each)), None)


def changed(base: str, path: str, value: Any) -> str:
    """The recipe with one entry put in place."""
    data = yaml.safe_load(base)
    *sections, last = path.split(".")
    target = data
    for section in sections:
        if not isinstance(target.get(section), dict):
            target[section] = {}
        target = target[section]
    target[last] = value
    return written(data)


def written(data: Any) -> str:
    return yaml.dump(data, Dumper=Plain, sort_keys=False, allow_unicode=True, width=1000)


class Plain(yaml.SafeDumper):
    """Without anchors, which recipes refuse as such, and with what is no plain data as text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


Plain.add_multi_representer(object, lambda dumper, value: dumper.represent_str(str(value)))


def plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
