"""The arms of a run along one key of its recipe: which of them are points of which line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from fw.core.errors import FwError
from fw.core.recipe.arm import Arm

Series = dict[str, list[tuple[float, str]]]
"""By label: x and the arm's name, in the order of x."""

SWEEP = "sweep.png"
"""The figure of a sweep in its run's folder."""

LISTS = ("guidance", "objectives")
"""Sections that are lists: a key of their only entry may leave out its index."""


@dataclass(frozen=True)
class Lines:
    """What a figure draws along a key."""

    key: str
    series: Series
    ticks: Sequence[str] = ()
    """What x is in words, where it is no number but a place in this list."""


def drawable(result: Mapping[str, Any]) -> bool:
    """Whether a run is a sweep that has all that its figure shows."""
    swept = result.get("sweep")
    if not swept or len(swept["points"]) < 2:
        return False
    names = [result["baseline"], *swept["points"]]
    return all(result["arms"][name]["status"] == "finished" for name in names)


def lines(result: Mapping[str, Any], recipe: Mapping[str, Any], key: str | None = None) -> Lines:
    """The arms of a run along one key of its resolved recipe, of a sweep along its longest if none
    is named; arms that differ in more are of different series."""
    flat = {name: flattened(arm_sections(recipe, name)) for name in recipe["arms"]}
    swept = result.get("sweep") or {"over": {}, "points": []}
    key = written(key, flat) if key is not None else longest(swept["over"], flat, result)
    own = swept["points"] if key in swept["over"] else []
    others = [name for name in flat if name in own or (not own and name != result["baseline"])]
    among = {name: flat[name] for name in others}
    along, ticks = numbers(among, key), list[str]()
    if own and len(along) < len(own):
        along, ticks = categories(among, key)
    if len(set(along.values())) < 2:
        raise FwError(f"--x {key}: {lacking(along)}, the baseline aside; {differing(flat, result)}")
    arms = [result["baseline"], *along]
    if unfinished := [name for name in arms if result["arms"][name]["status"] != "finished"]:
        raise FwError(
            f"run '{result['recipe']}': {', '.join(unfinished)} not finished; run its recipe again"
        )
    series: Series = {}
    rest = {name: without(flat[name], key, whole=bool(ticks)) for name in along}
    for name, label in labels(rest).items():
        series.setdefault(label, []).append((along[name], name))
    order = sorted(series, key=natural) if own else series
    return Lines(key, {label: sorted(series[label]) for label in order}, ticks)


def natural(label: str) -> list[tuple[float, str]]:
    """What sorts `clusters 5` before `clusters 10`."""
    parts = re.split(r"(\d+(?:\.\d+)?)", label)
    return [(float(part), "") if number % 2 else (0.0, part) for number, part in enumerate(parts)]


def written(key: str, flat: Mapping[str, Mapping[str, Any]]) -> str:
    """The key with the index that a list of one entry has in the resolved recipe."""
    section, _, rest = key.partition(".")
    indexed = f"{section}.0.{rest}"
    known = {path for values in flat.values() for path in values}
    return indexed if section in LISTS and key not in known and indexed in known else key


def longest(
    over: Mapping[str, Sequence[Any]],
    flat: Mapping[str, Mapping[str, Any]],
    result: Mapping[str, Any],
) -> str:
    """The swept key with the most values, a number if there is one."""
    if not over:
        raise FwError(f"--x: this run is no sweep; name a key ({differing(flat, result)})")

    def rank(key: str) -> tuple[bool, int]:
        return all(is_number(value) for value in over[key]), len(over[key])

    return max(over, key=rank)


def lacking(along: Mapping[str, float]) -> str:
    """Why these are no axis."""
    if not along:
        return "no arm has a number there"
    return f"it is {min(along.values()):g} in every arm that has it"


def differing(flat: Mapping[str, Mapping[str, Any]], result: Mapping[str, Any]) -> str:
    """The keys that could be an axis, in words."""
    others = {name: values for name, values in flat.items() if name != result["baseline"]}
    keys = sorted({path for values in flat.values() for path in values})
    fit = [path for path in keys if len(set(numbers(others, path).values())) > 1]
    return f"keys that differ: {', '.join(fit) or 'none'}"


def numbers(flat: Mapping[str, Mapping[str, Any]], key: str) -> dict[str, float]:
    """The arms that have a number at the key."""
    values = {name: value.get(key) for name, value in flat.items()}
    return {name: float(value) for name, value in values.items() if is_number(value)}


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def categories(
    flat: Mapping[str, Mapping[str, Any]], key: str
) -> tuple[dict[str, float], list[str]]:
    """A place for each arm and, in the order of the arms, what is at each: a value, or of a
    component its name and what sets it apart from others of the name."""
    components = labels({name: below(values, key) for name, values in flat.items()})
    at = {
        name: str(values[key]) if key in values else components[name]
        for name, values in flat.items()
    }
    ticks = list(dict.fromkeys(at.values()))
    return {name: float(ticks.index(value)) for name, value in at.items()}, ticks


def without(values: Mapping[str, Any], key: str, whole: bool) -> dict[str, Any]:
    """The others; `whole`: without what is below the key, too."""
    inside = below(values, key.removesuffix(".name")) if whole else {}
    return {path: value for path, value in values.items() if path != key and path not in inside}


def below(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    """What is inside of the key."""
    return {path: value for path, value in values.items() if path.startswith(f"{key}.")}


def arm_sections(recipe: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An arm of a resolved recipe with every section in place, as plain data."""
    own = recipe["arms"][name]
    return {
        section: own.get(section, recipe.get(section))
        for section in Arm.model_fields
        if section in {*own, *recipe}
    }


def flattened(value: Any, path: str = "") -> dict[str, Any]:
    """`{"annotator.clusters": 30, "guidance.0.scale": 1.5}`; lists of plain values stay whole."""
    inner = list(children(value))
    if not inner:
        return {path: value}
    flat: dict[str, Any] = {}
    for key, entry in inner:
        flat |= flattened(entry, f"{path}.{key}" if path else str(key))
    return flat


def children(value: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
        yield from enumerate(value)


def labels(arms: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What sets each arm apart from the others, in words; arms with the same settings get the same.

    Where components of other names stand, their names say it, and their fields only where one name
    has several values.
    """
    paths = list(dict.fromkeys(path for values in arms.values() for path in values))
    telling = [
        path for path in paths if differs(path, arms.values()) and not told_by_name(path, arms)
    ]
    return {name: ", ".join(said(values, telling)) or "arms" for name, values in arms.items()}


def differs(path: str, arms: Iterable[Mapping[str, Any]]) -> bool:
    return len({repr(values[path]) if path in values else "" for values in arms}) > 1


def told_by_name(path: str, arms: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the name of the component that a field belongs to says all that the field does."""
    name_at = f"{path.rpartition('.')[0]}.name"
    if path == name_at:
        return False
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for values in arms.values():
        if name_at in values:
            groups.setdefault(values[name_at], []).append(values)
    whole = [values for values in arms.values() if path in values]
    return all(name_at in values for values in whole) and not any(
        differs(path, group) for group in groups.values()
    )


def said(values: Mapping[str, Any], telling: Sequence[str]) -> Iterator[str]:
    for path in telling:
        last = path.rpartition(".")[2]
        if path in values and values[path] is not None and values[path] != []:
            yield str(values[path]) if last == "name" else f"{last} {values[path]}"
