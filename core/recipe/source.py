"""A recipe's text: strict YAML that knows the line of every key, and `--set` on top of it.

It is stricter than YAML 1.1 where that surprises: `1e-4` is a number, only `true` and `false` are
booleans, and there are no octal, sexagesimal or date literals. Duplicate keys, keys that are not
text, aliases and tags are errors.

People write recipes, so their size has bounds. A file beyond them (weights by mistake, a list of
millions) is refused while it is read, before it costs time and memory.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fw.core.errors import RecipeError
from fw.core.messages.escaping import visible

Location = tuple[str | int, ...]

BYTES = 500_000
ENTRIES = 30_000
"""Keys and values. A thousand arms that differ in two sections have about 20,000 when they are
resolved."""
DEPTH = 50
LENGTH = 10_000
"""Entries of a list, and characters of a text."""
DIGITS = 100

PROBLEMS = 50
"""Problems that are printed; more are only counted."""
CHARACTERS = 2000
"""Those of one problem that are printed."""

FOREIGN = {
    "UTF-32": (
        codecs.BOM_UTF32_LE,
        codecs.BOM_UTF32_BE,
    ),  # before UTF-16, whose mark is the beginning of this one
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
"""Encodings that editors write and fw does not read, and how files in them begin."""


class TooMuch(yaml.MarkedYAMLError):
    """The text is beyond one of the bounds above."""


class StrictLoader(yaml.SafeLoader):
    """YAML's core schema only, without anchors: every entry is written where it is used."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def __init__(self, text: str):
        super().__init__(text)
        self.entries = 0
        self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()
        if event.anchor or getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(
                problem="anchors, aliases and tags are not read; write the entry out",
                problem_mark=event.start_mark,
            )
        self.entries += 1
        for amount, bound, what in (
            (self.entries, ENTRIES, "{:,} entries"),
            (self.depth, DEPTH, "{} levels, one inside the other"),
            (index + 1 if isinstance(index, int) else 0, LENGTH, "{:,} entries in one list"),
            (len(getattr(event, "value", "")), LENGTH, "{:,} characters in one text"),
        ):
            if amount > bound:
                raise TooMuch(
                    problem=f"more than {what.format(bound)}", problem_mark=event.start_mark
                )
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class StrictDumper(yaml.SafeDumper):
    """Writes what StrictLoader reads back. Text is quoted if it looks like a number here or in
    YAML 1.1."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for tag, pattern, first in (
    ("bool", r"true|false", "tf"),
    ("null", r"null|~|", ["n", "~", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
        "-+.0123456789",
    ),
):
    for strict in (StrictLoader, StrictDumper):
        strict.add_implicit_resolver(
            f"tag:yaml.org,2002:{tag}", re.compile(rf"^({pattern})$"), list(first)
        )


def construct_decimal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    if len(node.value) > DIGITS:
        raise TooMuch(
            problem=f"a number of more than {DIGITS} digits", problem_mark=node.start_mark
        )
    return int(node.value)


StrictLoader.add_constructor("tag:yaml.org,2002:int", construct_decimal)


@dataclass
class Source:
    """The raw mapping of a recipe and where each of its entries was written."""

    name: str
    data: Any
    lines: dict[Location, str] = field(default_factory=dict)

    def where(self, location: Sequence[str | int]) -> str:
        """`recipes/x.yaml:24` for the innermost part of the location that is in the file."""
        written = self.written(location)
        return self.lines.get(written, self.name)

    def written(self, location: Sequence[str | int]) -> Location:
        """The location without the parts that stand only in the model (a list around a single
        entry, say)."""
        path: Location = ()
        for part in location:
            if (*path, part) in self.lines:
                path = (*path, part)
        return path

    def path(self, location: Sequence[str | int]) -> str:
        """The dotted path of a location, `arms.pag.guidance.scale`; a missing last key is kept."""
        written = list(self.written(location))
        if (
            location
            and isinstance(location[-1], str)
            and (not written or written[-1] != location[-1])
        ):
            written.append(location[-1])
        return ".".join(map(str, written)) or "recipe"

    def set(self, assignments: Sequence[str]) -> None:
        """Apply `train.steps=2000`, `metrics.0.space=pca` and the like to the raw mapping, by
        the same YAML rules."""
        for number, assignment in enumerate(assignments, start=1):
            key, equals, text = assignment.partition("=")
            words = key.split(".")
            if not equals or not all(words):
                raise refused(
                    [f"--set {assignment}: expected KEY=VALUE, such as --set train.steps=2000"]
                )
            origin = f"--set #{number}"
            value = parse(text, origin)
            if len(words) + max(map(len, value.lines), default=0) > DEPTH:
                raise refused(
                    [f"{origin}: {key}: too deep for a recipe, which has at most {DEPTH} levels"]
                )
            self.put(self.data, words, (), value, origin)

    def put(
        self, target: Any, words: Sequence[str], path: Location, value: Source, origin: str
    ) -> None:
        """Put a value where the words lead from `target`; a short name becomes a mapping, and a
        missing one is made."""
        part, rest = entry(target, words, f"{origin}: {'.'.join(map(str, path))}")
        here = (*path, part)
        if rest:
            child = target.get(part) if isinstance(target, dict) else target[part]
            target[part] = (
                {"name": child} if isinstance(child, str) else {} if child is None else child
            )
            self.lines.setdefault(here, origin)
            self.put(target[part], rest, here, value, origin)
        else:
            target[part] = value.data
            self.lines = {at: line for at, line in self.lines.items() if at[: len(here)] != here}
            self.lines |= {(*here, *at): origin for at in [(), *value.lines]}


def entry(target: Any, words: Sequence[str], place: str) -> tuple[str | int, Sequence[str]]:
    """The key or index that the first words name, and the words after it. A key that is there
    may hold dots."""
    if isinstance(target, list):
        if words[0].isdecimal() and int(words[0]) < len(target):
            return int(words[0]), words[1:]
        raise refused(
            [f"{place} is a list of {len(target)}; write an index, from 0, instead of '{words[0]}'"]
        )
    if not isinstance(target, dict):
        raise refused(
            [f"{place} is {target!r}, not a mapping, so there is no '{words[0]}' to set in it"]
        )
    lengths = [n for n in range(len(words), 0, -1) if ".".join(words[:n]) in target]
    length = lengths[0] if lengths else 1
    return ".".join(words[:length]), words[length:]


def refused(problems: Sequence[str], count: int = 0) -> RecipeError:
    """The problems, each on one line. Of very many only the first are printed, with the number of
    the others; `count` is that of all, where `problems` are not all."""
    distinct = list(dict.fromkeys(map(visible, problems)))
    printed = [cut(problem) for problem in distinct[:PROBLEMS]]
    more = max(count - len(problems), 0) + len(distinct) - len(printed)
    return RecipeError([*printed, *([f"... and {more:,} more"] if more else [])])


def cut(problem: str) -> str:
    """A problem; of one that is longer than anybody reads, the beginning and the end: they say
    where and what."""
    half = CHARACTERS // 2
    return problem if len(problem) <= CHARACTERS else f"{problem[:half]} ... {problem[-half:]}"


def read(path: Path) -> Source:
    """Read a recipe file, or raise RecipeError."""
    source = parse(text_of(path), str(path))
    if not isinstance(source.data, dict):
        raise refused([f"{path}: a recipe is a mapping of sections, such as `dataset: digits`"])
    return source


def text_of(path: Path) -> str:
    """A recipe's text, of UTF-8 with or without a mark, or RecipeError."""
    try:
        with path.open("rb") as file:
            data = file.read(BYTES + 1)
    except FileNotFoundError:
        raise refused(
            [f"{path}: there is no such file (`fw recipes` lists those that come with fw)"]
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise refused([f"{path}: cannot be read as text: {error}"]) from None
    if len(data) > BYTES:
        raise refused([f"{path}: too large for a recipe: it has more than {BYTES:,} bytes"])
    if (foreign := foreign_encoding(data)) is not None:
        remedy = f"save it as UTF-8 (`iconv -f {foreign} -t UTF-8 {path} > utf8.yaml`)"
        raise refused([f"{path}: this is {foreign} text, and recipes are UTF-8: {remedy}"])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        wrong = f"byte 0x{data[error.start]:02x} is not UTF-8: save it as UTF-8 text"
        raise refused([f"{path}:{line}: cannot be read as text: {wrong}"]) from None


def foreign_encoding(data: bytes) -> str | None:
    """The encoding of a text that is not in UTF-8, or None. It shows in the mark or, without one,
    in the zeros beside plain letters."""
    for name, marks in FOREIGN.items():
        if data.startswith(marks):
            return name
    for name, zeros in (("UTF-16LE", data[1:200:2]), ("UTF-16BE", data[0:200:2])):
        if zeros and not any(zeros):
            return name
    return None


def parse(text: str, name: str) -> Source:
    """Parse YAML text into data and lines, or raise RecipeError with every fault."""
    try:
        loader = StrictLoader(text)
        node = loader.get_single_node()
        data = loader.construct_document(node) if node is not None else None
    except yaml.MarkedYAMLError as error:
        place = f"{name}:{error.problem_mark.line + 1}" if error.problem_mark else name
        reason = ": ".join(filter(None, (error.context, error.problem)))
        what = "too large for a recipe" if isinstance(error, TooMuch) else "not valid YAML"
        raise refused([f"{place}: {what}: {reason}"]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise refused([f"{name}: not valid YAML: {' '.join(str(error).split())}"]) from None
    lines: dict[Location, str] = {}
    problems: list[str] = []
    if node is not None:
        locate(node, (), name, lines, problems)
    if problems:
        raise refused(problems)
    return Source(name, data, lines)  # `read` sees to it that a recipe is a mapping


def locate(
    node: yaml.Node, path: Location, name: str, lines: dict[Location, str], problems: list[str]
) -> None:
    """Fill `lines` with the line of every entry under `node`, and `problems` with its bad keys."""
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            lines[(*path, index)] = f"{name}:{child.start_mark.line + 1}"
            locate(child, (*path, index), name, lines, problems)
    elif isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            here, written = (
                f"{name}:{key.start_mark.line + 1}",
                ".".join(map(str, (*path, key.value))),
            )
            if key.tag != "tag:yaml.org,2002:str":
                problems.append(
                    f"{here}: {written}: the key {key.value or 'null'} is not text; quote it"
                )
            elif (*path, key.value) in lines:
                problems.append(f"{here}: {written}: written twice")
            lines[(*path, key.value)] = here
            locate(child, (*path, key.value), name, lines, problems)


def dump(data: Any, compact: bool = False) -> str:
    """The data as text that `parse` reads back as equal data; `compact` has the innermost mappings
    and lists on a line each."""
    style = None if compact else False
    return yaml.dump(
        data, Dumper=StrictDumper, sort_keys=False, width=100, default_flow_style=style
    )
