"""A recipe's text: strict YAML that knows the line of every key, and `--set` on top of it.

It is stricter than YAML 1.1 where that surprises: `1e-4` is a number, only `true` and `false` are
booleans, and there are no octal, sexagesimal or date literals. Duplicate keys, keys that are not
text, aliases and tags are errors.

People write recipes, so their size has bounds. A file beyond them (weights by mistake, a list of
millions) is refused while it is read, before it costs time and memory.
"""

from __future__ import annotations

import codecs
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fw.core.errors import RecipeError
from fw.core.messages.escaping import visible
from fw.core.recipe import keys
from fw.core.recipe.keys import Assignment
from fw.core.recipe.shipped import missing

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
        """Apply `train.steps=2000`, `metrics.0.space=pca`, `metrics+=prdc` and the like to the raw
        mapping, by the same YAML rules. RecipeError for one that undoes another."""
        earlier: dict[Location, str] = {}
        for number, text in enumerate(assignments, start=1):
            origin = f"--set #{number}"
            try:
                assignment = keys.parse(text)
            except ValueError as error:
                raise refused([f"--set {text}: {error}"]) from None
            value = parse(assignment.value, origin)
            if len(assignment.words) + max(map(len, value.lines), default=0) > DEPTH:
                most = f"a recipe, which has at most {DEPTH} levels"
                raise refused([f"{origin}: {assignment.key}: too deep for {most}"])
            place = self.put(assignment, value, origin)
            for other, theirs in earlier.items():
                if other[: len(place)] == place:
                    raise refused([undone(place, origin, other, theirs)])
            earlier[place] = origin

    def put(self, assignment: Assignment, value: Source, origin: str) -> Location:
        """Put a value where the assignment says, and return where that is. A short name becomes a
        mapping, a single entry a list where an index or one more follows, and a key that is
        missing is made."""
        target, path, first = self.data, Location(), 0
        while True:
            part, after = entry(target, assignment, first, f"{origin}: {dotted(path)}")
            path = (*path, part)
            if after == len(assignment.words):
                break
            child = value_at(target, part)
            if path == ("arms", part) and child is None:
                raise refused([f"{origin}: {no_arm(assignment.words[1:], target)}"])
            if assignment.words[after].isdecimal() and single(child):
                child = [child]
                self.move_into_list(path)
            elif isinstance(child, str):
                child = {"name": child}
            target[part] = {} if child is None else child
            self.lines.setdefault(path, origin)
            target, first = target[part], after
        if assignment.appends:
            if single(value_at(target, part)):
                target[part] = [target[part]]
                self.move_into_list(path)
            entries = appendable(target, part, f"{origin}: {dotted(path)}", len(path))
            target[part] = entries
            self.lines.setdefault(path, origin)
            target, part, path = entries, len(entries), (*path, len(entries))
            entries.append(None)
        target[part] = value.data
        self.lines = {at: line for at, line in self.lines.items() if at[: len(path)] != path}
        self.lines |= {(*path, *at): origin for at in [(), *value.lines]}
        return path

    def move_into_list(self, path: Location) -> None:
        """What was written at a location is the first entry of a list there now."""
        depth = len(path)
        inner = {at: line for at, line in self.lines.items() if at[:depth] == path}
        self.lines |= {(*path, 0, *at[depth:]): line for at, line in inner.items()}
        for at in inner.keys() - {path}:
            del self.lines[at]


def value_at(target: Any, part: Any) -> Any:
    """What a mapping or a list has there; None if that is nothing yet."""
    return target.get(part) if isinstance(target, dict) else target[part]


def dotted(path: Sequence[str | int]) -> str:
    return ".".join(map(str, path))


def entry(target: Any, assignment: Assignment, first: int, place: str) -> tuple[str | int, int]:
    """The key or index that the words from the first on name, and where the words after it begin.
    A key that is there may hold dots."""
    word = assignment.words[first]
    if isinstance(target, list):
        if word.isdecimal() and int(word) < len(target):
            return int(word), first + 1
        raise refused(
            [
                f"{place} is a list of {len(target)}{listed(target)}; write an index, from 0, "
                f"instead of '{word}', or +=VALUE to append"
            ]
        )
    if not isinstance(target, dict):
        raise refused(
            [f"{place} is {target!r}, not a mapping, so there is no '{word}' to set in it"]
        )
    if first not in assignment.quoted:
        for end in range(len(assignment.words), first, -1):
            if (key := ".".join(assignment.words[first:end])) in target:
                return key, end
    return word, first + 1


def listed(entries: Sequence[Any]) -> str:
    """The indices and names of a list's entries, in brackets, if they are few."""
    names = [each.get("name") if isinstance(each, dict) else each for each in entries]
    if not 0 < len(names) <= 10 or not all(isinstance(name, str | int | float) for name in names):
        return ""
    return f" ({', '.join(f'{index}: {name}' for index, name in enumerate(names))})"


def single(value: Any) -> bool:
    """Whether it is a component as recipes write it, which may stand for a list of one."""
    return isinstance(value, str) or (isinstance(value, dict) and "name" in value)


def appendable(target: Any, part: str | int, place: str, depth: int) -> list[Any]:
    """The list that is to get one more entry. A section of the recipe or of an arm that is absent
    is an empty one."""
    there = value_at(target, part)
    if isinstance(there, list):
        return there
    if there is None and depth in (1, 3):  # metrics, arms.self.guidance
        return []
    what = "is not in the recipe" if there is None else "is no list"
    raise refused([f"{place} {what}, so nothing can be appended; write it whole, such as =[1, 2]"])


def no_arm(words: Sequence[str], arms: Mapping[str, Any]) -> str:
    """A sentence about an arm that is not there, whose name is the first of the words, or some."""
    names = [".".join(words[:end]) for end in range(1, len(words))]
    near = [(name, difflib.get_close_matches(name, arms, n=1)) for name in reversed(names)]
    name, close = next((each for each in near if each[1]), (words[0], []))
    hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(arms) or 'none'}"
    return f"arms has no '{name}' ({hint}); a new arm is set whole, such as 'arms.{name}={{}}'"


def undone(place: Location, origin: str, other: Location, theirs: str) -> str:
    """A sentence about an assignment of which nothing would be left."""
    if place == other:
        return f"{origin}: {dotted(place)} is set by {theirs}, too; leave one of them out"
    return (
        f"{origin}: {dotted(place)} would undo {theirs}, which sets {dotted(other)}; name "
        f"{dotted(place)} first"
    )


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
        raise refused([f"{path}: there is no such file ({missing(path)})"]) from None
    except IsADirectoryError:
        raise refused([f"{path}: this is a folder, and a recipe is a file"]) from None
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
