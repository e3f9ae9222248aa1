"""The arm that a sweep is of, and where in it the swept keys are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fw.core.commands.sweep.axes import Axis
from fw.core.errors import FwError
from fw.core.recipe.arm import Arm
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import Source


@dataclass(frozen=True)
class Base:
    """A recipe, one of its arms, and the axes with the keys as they are in that arm."""

    source: Source
    recipe: Recipe
    arm: str
    axes: tuple[Axis, ...]


def base(source: Source, recipe: Recipe, axes: Sequence[Axis], arm: str | None) -> Base:
    """The arm of this name, or else the one that has all the keys; FwError in one sentence where
    there is none, or more than one."""
    for axis in axes:
        check_section(axis.words[0])
    if arm is not None and arm not in recipe.arms:
        known = ", ".join(recipe.arms)
        raise FwError(f"--arm {arm}: no such arm in recipe '{recipe.name}' (known: {known})")
    names = [arm] if arm is not None else [name for name in recipe.arms if name != recipe.baseline]
    sections = {name: used_sections(recipe.arm(name)) for name in names}
    places: dict[str, list[str]] = {}
    for axis in axes:
        found = {name: place(sections[name], axis.words) for name in sections}
        if not any(found.values()):
            raise FwError(missing(axis.key, sections, recipe.name))
        sections = {name: each for name, each in sections.items() if found[name]}
        for name in sections:
            places.setdefault(name, []).append(found[name] or "")
    if not sections:
        listed = " and ".join(axis.key for axis in axes)
        raise FwError(f"--over: no arm of recipe '{recipe.name}' has both {listed}")
    chosen = one_of(recipe, sections, places)
    keys = zip(places[chosen], axes, strict=True)
    return Base(source, recipe, chosen, tuple(Axis(key, axis.values) for key, axis in keys))


def used_sections(arm: Arm) -> dict[str, Any]:
    """An arm's sections as plain data; None for those that have no effect in it."""
    idle = {"encoder": arm.conditioner is None, "prior": arm.drawn_from is None}
    sections = arm.model_dump(mode="json")
    return {name: None if idle.get(name) else value for name, value in sections.items()}


def check_section(section: str) -> None:
    """FwError for a section that arms do not have."""
    if section in Arm.model_fields:
        return
    if section in Recipe.model_fields:
        raise FwError(
            f"--over {section}: it is equal in all arms by design, so that they can be compared; "
            "`fw run` with `--set` runs the recipe with another value"
        )
    near = difflib.get_close_matches(section, Arm.model_fields, n=1)
    suggestion = f"; did you mean '{near[0]}'?" if near else ""
    known = ", ".join(Arm.model_fields)
    raise FwError(f"--over {section}: no section of an arm{suggestion} (known: {known})")


def place(sections: Mapping[str, Any], words: Sequence[str]) -> str | None:
    """Where the key is in an arm, `guidance.0.scale` for `guidance.scale` of a single mode; None if
    the arm has no such key."""
    value: Any = sections
    path: list[str] = []
    for position, word in enumerate(words):
        if isinstance(value, list) and not word.isdecimal():
            if len(value) != 1 or not isinstance(value[0], Mapping):
                return None
            path.append("0")
            value = value[0]
        if isinstance(value, list) and int(word) < len(value):
            value = value[int(word)]
        elif isinstance(value, Mapping) and word in value:
            value = value[word]
        else:
            return None
        if value is None and position == 0:
            return None  # the arm is without this section
        path.append(word)
    return ".".join(path)


def missing(key: str, arms: Mapping[str, Mapping[str, Any]], recipe: str) -> str:
    """Why a key is in no arm, and which are near."""
    section, *rest = key.split(".")
    entries = [arm[section] for arm in arms.values() if arm.get(section)]
    several = [each for each in entries if isinstance(each, list) and len(each) > 1]
    if several and rest and not rest[0].isdecimal():
        return (
            f"--over {key}: {section} is a list of {len(several[0])}; say which, such as "
            f"{section}.0.{'.'.join(rest)}"
        )
    near = difflib.get_close_matches(key, sorted(keys_of(arms.values())), n=1)
    suggestion = f"; did you mean {near[0]}?" if near else ""
    only = f"arm {next(iter(arms))} has no such key"
    none = f"no arm of recipe '{recipe}' has such a key, the baseline aside"
    return f"--over {key}: {only if len(arms) == 1 else none}{suggestion}"


def keys_of(arms: Iterable[Mapping[str, Any]]) -> set[str]:
    """All keys of these arms; those of a single entry of a list without its index."""

    def below(value: Any, path: str) -> Iterable[str]:
        if isinstance(value, list):
            for index, entry in enumerate(value):
                yield from below(entry, path if len(value) == 1 else f"{path}.{index}")
        elif isinstance(value, Mapping):
            for key, entry in value.items():
                inner = f"{path}.{key}" if path else key
                yield inner
                yield from below(entry, inner)

    return {key for arm in arms for key in below(arm, "")}


def one_of(
    recipe: Recipe, arms: Mapping[str, Mapping[str, Any]], places: Mapping[str, Sequence[str]]
) -> str:
    """The only arm; one of several that the sweep makes the same; or that of the recipe's
    question."""
    rest = {name: without(arm, places[name]) for name, arm in arms.items()}
    first = next(iter(rest))
    if all(each == rest[first] for each in rest.values()):
        return first
    if recipe.question is not None and recipe.question.better in arms:
        return recipe.question.better
    raise FwError(f"--over: several arms have these keys ({', '.join(arms)}); choose with --arm")


def without(value: Any, paths: Sequence[str]) -> Any:
    """Plain data without what the paths lead to."""
    here = {path for path in paths if "." not in path}
    below = [path.partition(".") for path in paths if "." in path]
    entries = (
        value.items()
        if isinstance(value, Mapping)
        else ((str(index), entry) for index, entry in enumerate(value))
        if isinstance(value, list)
        else None
    )
    if entries is None:
        return value
    return {
        key: without(entry, [rest for first, _, rest in below if first == key])
        for key, entry in entries
        if key not in here
    }
