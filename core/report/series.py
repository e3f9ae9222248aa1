"""The arms of a run along one key of its recipe: which of them are points of which line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fw.core.errors import FwError
from fw.core.recipe.arm import Arm

Series = dict[str, list[tuple[float, str]]]
"""By label: x and the arm's name, in the order of x."""


def sweep(result: Mapping[str, Any], recipe: Mapping[str, Any], key: str) -> Series:
    """The arms of a run along one key of its resolved recipe; arms that differ in more are of
    different series."""
    flat = {name: flattened(arm_sections(recipe, name)) for name in recipe["arms"]}
    along = numbers(flat, key, result["baseline"])
    if len(set(along.values())) < 2:
        keys = sorted({path for values in flat.values() for path in values})
        fit = [
            path for path in keys if len(set(numbers(flat, path, result["baseline"]).values())) > 1
        ]
        found = (
            f"it is {min(along.values()):g} in every arm that has it"
            if along
            else "no arm has a number there"
        )
        raise FwError(
            f"--x {key}: {found}, the baseline aside; keys that differ: {', '.join(fit) or 'none'}"
        )
    arms = [result["baseline"], *along]
    if unfinished := [name for name in arms if result["arms"][name]["status"] != "finished"]:
        raise FwError(
            f"run '{result['recipe']}': {', '.join(unfinished)} not finished; run its recipe again"
        )
    series: Series = {}
    for name, label in labels({name: without(flat[name], key) for name in along}).items():
        series.setdefault(label, []).append((along[name], name))
    return {label: sorted(points) for label, points in series.items()}


def numbers(flat: Mapping[str, Mapping[str, Any]], key: str, baseline: str) -> dict[str, float]:
    """The arms beside the baseline that have a number at the key."""
    values = {name: value.get(key) for name, value in flat.items() if name != baseline}
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def without(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {path: value for path, value in values.items() if path != key}


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
