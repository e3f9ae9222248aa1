"""Points of a sweep as a recipe: an arm for each, the baseline, and a header that says where they
come from."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fw.core.commands.sweep.axes import Axis
from fw.core.commands.sweep.base import Base
from fw.core.errors import FwError
from fw.core.files.durable import write_text
from fw.core.kinds import Sampler
from fw.core.messages.plain import writing
from fw.core.messages.secrets import redact, without_secrets
from fw.core.recipe.finding import in_yaml
from fw.core.recipe.loading import validate
from fw.core.recipe.model import ARM_CHARACTERS, ARMS, Recipe, as_list
from fw.core.recipe.source import Source, dump, parse
from fw.core.recipe.sweep import Sweep
from fw.registry import installed

Point = tuple[Any, ...]
"""A value for each axis."""

MARK = "# Written by `fw sweep`"
"""How its files begin, so that it replaces no other."""

MANY = 100
"""A grid of more points is run only if the user says so."""


def count(axes: Sequence[Axis]) -> int:
    return math.prod(len(axis.values) for axis in axes)


def grid(axes: Sequence[Axis], yes: bool) -> list[Point]:
    """All points, the last key's values changing first; FwError if these are too many."""
    points, most = count(axes), ARMS - 1
    if points > most:
        raise FwError(
            f"--over: these are {points:,} points, and a recipe has at most {most} of them"
        )
    if points > MANY and not yes:
        raise FwError(
            f"--over: these are {points:,} points, each an arm of its own; --yes if that is meant"
        )
    return list(itertools.product(*(axis.values for axis in axes)))


def cross(axes: Sequence[Axis]) -> list[Point]:
    """Points that have every value of every axis, where all points are too many to be looked at."""
    first = tuple(axis.values[0] for axis in axes)
    found = [
        (*first[:place], value, *first[place + 1 :])
        for place, axis in enumerate(axes)
        for value in axis.values
    ]
    return [point for place, point in enumerate(found) if point not in found[:place]]


def names(axes: Sequence[Axis], points: Sequence[Point], baseline: str) -> list[str]:
    """What the arms are called: `scale_1.25`, `scale_1.25_clusters_30`."""
    lasts = [last_word(axis) for axis in axes]
    labels = [
        last if lasts.count(last) == 1 else re.sub(r"\.\d+(?=\.)", "", axis.key).replace(".", "_")
        for last, axis in zip(lasts, axes, strict=True)
    ]
    found: list[str] = []
    taken = {baseline}
    for point in points:
        parts = (f"{label}_{value_word(value)}" for label, value in zip(labels, point, strict=True))
        whole = "_".join(parts)[: ARM_CHARACTERS - 5]
        numbered = (f"{whole}_{number}" for number in itertools.count(2))
        name = next(each for each in itertools.chain([whole], numbered) if each not in taken)
        taken.add(name)
        found.append(name)
    return found


def recipe_data(base: Base, points: Sequence[Point], suffix: str, **facts: Any) -> dict[str, Any]:
    """The recipe of these points as plain data; `facts` are what its `sweep` says beside them."""
    raw, baseline = dict(base.source.data), base.recipe.baseline
    arms = dict(zip(names(base.axes, points, baseline), points, strict=True))
    record = Sweep(over={axis.key: axis.values for axis in base.axes}, points=tuple(arms), **facts)
    kept = {key: value for key, value in raw.items() if key not in ("arms", "question", "sweep")}
    own = {name: point_arm(base, point) for name, point in arms.items()}
    return {
        **kept,
        "name": f"{base.recipe.name}_{suffix}",
        **judges(base, kept),
        **({"tracker": without_secrets(raw["tracker"])} if raw.get("tracker") else {}),
        "baseline": baseline,
        "sweep": record.model_dump(mode="json", exclude_defaults=True),
        "arms": {
            baseline: raw["arms"][baseline],
            **(sampled_alike(base, own) if base.arm != baseline else {}),
            **own,
        },
    }


def validated(data: Mapping[str, Any], name: str) -> Recipe:
    """The recipe; RecipeError, which calls it by this name, if a point is none."""
    lines = parse(dump(data), name).lines  # of a text that nobody has seen
    return validate(Source(name, data, dict.fromkeys(lines, name)), installed())


def text(data: Mapping[str, Any], base: Base, command: str) -> str:
    """The recipe as a file."""
    kind = {"grid": "A sweep", "search": "A search", "again": "The best point of a sweep"}
    header = (
        f"{MARK} from {base.source.name}: {kind[data['sweep']['kind']].lower()} of arm "
        f"{base.arm}.\n#\n#   {command}\n#\n"
        "# `fw run` of this file, with the same --out, finds everything done.\n\n"
    )
    return redact(header) + dump(data, compact=True)


def write(text: str, path: Path) -> None:
    """Write such a file; FwError where a file of another kind is."""
    check_place(path)
    with writing(path, "-o"):
        write_text(path, text)


def check_place(path: Path) -> None:
    """FwError unless a sweep can be written there."""
    with writing(path, "-o"):
        if path.suffix not in (".yaml", ".yml") or not path.absolute().parent.is_dir():
            raise FwError(f"-o {path}: name a .yaml file in a folder that exists")
        if path.exists() and not path.read_text(encoding="utf-8").startswith(MARK):
            raise FwError(f"-o {path}: this file was not written by `fw sweep`; name another")


def last_word(axis: Axis) -> str:
    """What a key is called for short: its last word, of a component's name that of its section."""
    words = [word for word in axis.words if not word.isdecimal()]
    return words[-2] if words[-1] == "name" and len(words) > 1 else words[-1]


def value_word(value: Any) -> str:
    """A value as a part of an arm's name."""
    if isinstance(value, Mapping) and "name" in value:
        value = value["name"]
    word = re.sub(r"[^A-Za-z0-9.\-]+", "-", in_yaml(value))
    return word if isinstance(value, int | float) else word.strip("-.") or "value"


def point_arm(base: Base, point: Point) -> dict[str, Any]:
    """The arm with the point's values, as a recipe has it: what it leaves to the recipe's own
    sections, it still does."""
    raw = dict(base.source.data["arms"][base.arm])
    whole = base.recipe.arm(base.arm).model_dump(mode="json")
    for axis, value in zip(base.axes, point, strict=True):
        section, *rest = axis.words
        written = raw[section] if section in raw else base.source.data.get(section)
        raw[section] = placed(written, whole[section], rest, value)
    return raw


def placed(written: Any, whole: Any, words: Sequence[str], value: Any) -> Any:
    """What is written, with the value where the words lead; `whole` is the same with all defaults,
    for what is not written."""
    if not words:
        return value
    first, *rest = words
    if isinstance(whole, list):
        index, entries = int(first), list(as_list(written) or whole)
        entries[index] = placed(entries[index], whole[index], rest, value)
        return entries if isinstance(written, list) else entries[0]
    if isinstance(written, str):
        written = {"name": written}
    entry = dict(written if isinstance(written, Mapping) else whole)
    entry[first] = placed(entry.get(first, whole.get(first)), whole.get(first), rest, value)
    return entry


def judges(base: Base, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics and probes that have something to judge in the arms that are left."""
    left = [base.recipe.arm(base.arm), base.recipe.arm(base.recipe.baseline)]
    swept = {axis.words[0] for axis in base.axes}
    if swept & {"annotator", "encoder", "model"}:  # what they have may change from point to point
        return {}
    metrics = zip(as_list(raw["metrics"]), base.recipe.metrics, strict=True)
    probes = zip(as_list(raw.get("probes")), base.recipe.probes, strict=True)
    found = {
        "metrics": [each for each, metric in metrics if any(a.scored_by(metric) for a in left)],
        "probes": [each for each, probe in probes if any(a.probed_by(probe) for a in left)],
    }
    return {key: value for key, value in found.items() if key in raw}


def sampled_alike(base: Base, arms: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Where the sampler is swept, the baseline with the sampler of each point: a fair comparison
    gives it the same chances."""
    if "sampler" not in {axis.words[0] for axis in base.axes}:
        return {}
    raw = base.source.data["arms"][base.recipe.baseline]
    had: list[Any] = [base.recipe.arm(base.recipe.baseline).sampler]
    found: dict[str, Any] = {}
    for name, arm in arms.items():
        if (sampler := resolved(arm["sampler"])) not in had:
            had.append(sampler)
            found[f"{base.recipe.baseline}_{name}"] = {**raw, "sampler": arm["sampler"]}
    return found


def resolved(sampler: Any) -> Any:
    """The component, which may be written in several ways; what is none is left as it is, for the
    recipe to be refused."""
    try:
        return TypeAdapter(Sampler).validate_python(sampler)
    except ValidationError:
        return sampler
