"""A recipe's text: strict YAML that knows the line of every key, and `--set` on top of it.

Stricter than YAML 1.1 where that surprises: `1e-4` is a number, only `true` and `false` are booleans, there are no
octal, sexagesimal or date literals; duplicate keys, keys that are not text, aliases and tags are errors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fw.core.errors import RecipeError

Location = tuple[str | int, ...]


class StrictLoader(yaml.SafeLoader):
    """YAML's core schema only, and every entry stands where it is used."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()
        if event.anchor or getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(
                problem="anchors, aliases and tags are not read; write the entry out", problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)


class StrictDumper(yaml.SafeDumper):
    """Writes what StrictLoader reads back: text that looks like a number to either kind of YAML is quoted."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for tag, pattern, first in (
    ("bool", r"true|false", "tf"),
    ("null", r"null|~|", ["n", "~", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
):
    for strict in (StrictLoader, StrictDumper):
        strict.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"^({pattern})$"), list(first))


def construct_decimal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(node.value)


StrictLoader.add_constructor("tag:yaml.org,2002:int", construct_decimal)


@dataclass
class Source:
    """The raw mapping of a recipe and where each of its entries was written."""

    name: str
    data: Any
    lines: dict[Location, str] = field(default_factory=dict)

    def where(self, location: Sequence[str | int]) -> str:
        """`recipes/x.yaml:24` for the innermost part of the location that is written down."""
        written = self.written(location)
        return self.lines.get(written, self.name)

    def written(self, location: Sequence[str | int]) -> Location:
        """The location without the parts that stand only in the model (a list around a single entry, say)."""
        path: Location = ()
        for part in location:
            if (*path, part) in self.lines:
                path = (*path, part)
        return path

    def path(self, location: Sequence[str | int]) -> str:
        """The dotted path of a location, `arms.pag.guidance.scale`; a missing last key is kept."""
        written = list(self.written(location))
        if location and isinstance(location[-1], str) and (not written or written[-1] != location[-1]):
            written.append(location[-1])
        return ".".join(map(str, written)) or "recipe"

    def set(self, assignments: Sequence[str]) -> None:
        """Apply `train.steps=2000`, `metrics.0.space=pca` and the like to the raw mapping, by the same YAML rules."""
        for number, assignment in enumerate(assignments, start=1):
            key, equals, text = assignment.partition("=")
            words = key.split(".")
            if not equals or not all(words):
                raise RecipeError([f"--set {assignment}: expected KEY=VALUE, such as --set train.steps=2000"])
            origin = f"--set #{number}"
            self.put(self.data, words, (), parse(text, origin), origin)

    def put(self, target: Any, words: Sequence[str], path: Location, value: Source, origin: str) -> None:
        """Put a value where the words lead from `target`; a short name becomes a mapping, and a missing one is made."""
        part, rest = entry(target, words, f"{origin}: {'.'.join(map(str, path))}")
        here = (*path, part)
        if rest:
            child = target.get(part) if isinstance(target, dict) else target[part]
            target[part] = {"name": child} if isinstance(child, str) else {} if child is None else child
            self.lines.setdefault(here, origin)
            self.put(target[part], rest, here, value, origin)
        else:
            target[part] = value.data
            self.lines = {at: line for at, line in self.lines.items() if at[: len(here)] != here}
            self.lines |= {(*here, *at): origin for at in [(), *value.lines]}


def entry(target: Any, words: Sequence[str], place: str) -> tuple[str | int, Sequence[str]]:
    """The key or index that the first words name, and the words after it. A key that is there may hold dots."""
    if isinstance(target, list):
        if words[0].isdecimal() and int(words[0]) < len(target):
            return int(words[0]), words[1:]
        raise RecipeError([f"{place} is a list of {len(target)}; write an index, from 0, instead of '{words[0]}'"])
    if not isinstance(target, dict):
        raise RecipeError([f"{place} is {target!r}, not a mapping, so there is no '{words[0]}' to set in it"])
    lengths = [n for n in range(len(words), 0, -1) if ".".join(words[:n]) in target]
    length = lengths[0] if lengths else 1
    return ".".join(words[:length]), words[length:]


def read(path: Path) -> Source:
    """Read a recipe file, or raise RecipeError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError([f"{path}: there is no such file (`fw recipes` lists those that come with fw)"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError([f"{path}: cannot be read as text: {error}"]) from None
    source = parse(text, str(path))
    if not isinstance(source.data, dict):
        raise RecipeError([f"{path}: a recipe is a mapping of sections, such as `dataset: digits`"])
    return source


def parse(text: str, name: str) -> Source:
    """Parse YAML text into data and lines, or raise RecipeError with every fault found."""
    try:
        loader = StrictLoader(text)
        node = loader.get_single_node()
        data = loader.construct_document(node) if node is not None else None
    except yaml.MarkedYAMLError as error:
        place = f"{name}:{error.problem_mark.line + 1}" if error.problem_mark else name
        reason = ": ".join(filter(None, (error.context, error.problem)))
        raise RecipeError([f"{place}: not valid YAML: {reason}"]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError([f"{name}: not valid YAML: {' '.join(str(error).split())}"]) from None
    lines: dict[Location, str] = {}
    problems: list[str] = []
    if node is not None:
        locate(node, (), name, lines, problems)
    if problems:
        raise RecipeError(problems)
    return Source(name, data, lines)  # `read` sees to it that a recipe is a mapping


def locate(node: yaml.Node, path: Location, name: str, lines: dict[Location, str], problems: list[str]) -> None:
    """Fill `lines` with the line of every entry under `node`, and `problems` with its bad keys."""
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            lines[(*path, index)] = f"{name}:{child.start_mark.line + 1}"
            locate(child, (*path, index), name, lines, problems)
    elif isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            here, written = f"{name}:{key.start_mark.line + 1}", ".".join(map(str, (*path, key.value)))
            if key.tag != "tag:yaml.org,2002:str":
                problems.append(f"{here}: {written}: the key {key.value or 'null'} is not text; quote it")
            elif (*path, key.value) in lines:
                problems.append(f"{here}: {written}: written twice")
            lines[(*path, key.value)] = here
            locate(child, (*path, key.value), name, lines, problems)


def dump(data: Any) -> str:
    """The data as text that `parse` reads back as equal data."""
    return yaml.dump(data, Dumper=StrictDumper, sort_keys=False, width=100)
