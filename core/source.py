"""A recipe's text: strict YAML that knows the line of every key, and `--set` on top of it.

Stricter than YAML 1.1 where that surprises: `1e-4` is a number, only `true` and `false` are booleans, there are no
octal, sexagesimal or date literals, duplicate keys and keys that are not text are errors.
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
    """YAML's core schema only."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for tag, pattern, first in (
    ("bool", r"true|false", "tf"),
    ("null", r"null|~|", ["n", "~", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
):
    StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"^({pattern})$"), list(first))


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
        """Apply `train.steps=2000` and the like to the raw mapping; values are read by the same YAML rules."""
        for number, assignment in enumerate(assignments, start=1):
            key, equals, text = assignment.partition("=")
            parts = key.split(".")
            if not equals or not all(parts):
                raise RecipeError([f"--set {assignment}: expected KEY=VALUE, such as --set train.steps=2000"])
            origin = f"--set #{number}"
            value = parse(text, origin).data
            target = self.data
            for depth, part in enumerate(parts[:-1], start=1):
                entry = target.get(part)
                if isinstance(entry, str):
                    entry = {"name": entry}
                elif entry is None:
                    entry = {}
                if not isinstance(entry, dict):
                    raise RecipeError(
                        [f"{origin}: {'.'.join(parts[:depth])} is not a mapping, so it has no keys to set"]
                    )
                target[part] = entry
                self.lines.setdefault(tuple(parts[:depth]), origin)
                target = entry
            target[parts[-1]] = value
            self.lines[tuple(parts)] = origin


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
        raise RecipeError([f"{path}: a recipe is a mapping of sections, not {type(source.data).__name__}"])
    return source


def parse(text: str, name: str) -> Source:
    """Parse YAML text into data and lines, or raise RecipeError with every fault found."""
    try:
        loader = StrictLoader(text)
        node = loader.get_single_node()
        data = loader.construct_document(node) if node is not None else None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{name}:{mark.line + 1}" if mark else name
        raise RecipeError([f"{place}: not valid YAML: {getattr(error, 'problem', None) or error}"]) from None
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
            here = f"{name}:{key.start_mark.line + 1}"
            if key.tag != "tag:yaml.org,2002:str":
                problems.append(
                    f"{here}: {'.'.join(map(str, path)) or 'recipe'}: the key {key.value} is not text; quote it"
                )
            elif (*path, key.value) in lines:
                problems.append(f"{here}: {'.'.join(map(str, (*path, key.value)))}: written twice")
            lines[(*path, key.value)] = here
            locate(child, (*path, key.value), name, lines, problems)
