"""Recipes that nobody would write: right ones with something done to them, and made-up ones."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from torture.handmade import LISTED, PLACES, plain, values, written

WEIRD: tuple[Any, ...] = (
    *(0, -1, 1, 2**31, 2**63, 2**64, 10**30, -(10**30), 10**400),
    *(0.0, -0.0, 1e-320, 1e308, -1e308, float("inf"), float("-inf"), float("nan")),
    *(None, True, False, "", " ", "null", "nothing", "0", "1e5", "~", "..", "a/b", "a.b", "-"),
    *("é", "日本", "\u202e\u0000", "\x1b[2J", "<script>", "[red]", "a\nb", "{x}", "%s", "$HOME"),
    *("x" * 300, "x" * 20_000, [], {}, [[]], [None], {"name": None}, {"name": []}, {"": ""}),
    *({"name": "unet"}, {"name": "fd", "space": "fd"}, [1] * 300, {str(n): n for n in range(50)}),
)

BIG = 400
"""One in so many texts is of a megabyte or more."""


def recipe(draw: random.Random, bases: list[str]) -> str | bytes:
    """One recipe's text."""
    if draw.randrange(BIG) == 0:
        return big(draw)
    base = draw.choice(bases)
    how = draw.random()
    if how < 0.5:
        return mutated(draw, base)
    if how < 0.7:
        return grown(draw, base)
    if how < 0.95:
        return scribbled(draw, base)
    return raw(draw)


def mutated(draw: random.Random, base: str) -> str:
    """With one to four entries changed, taken away, added, moved or wrapped."""
    data = yaml.safe_load(base)
    text = base
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        draw.choice(MUTATIONS)(draw, data)
        try:
            text = written(data)
        except RecursionError:  # deeper than what writes YAML can follow
            break
    return text


def entry(draw: random.Random, data: Any) -> tuple[Any, Any]:
    """A random entry, however deep: what holds it, and its key or index."""
    found = list(holders(data))
    return draw.choice(found) if found else ({"x": 0}, "x")


def holders(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every entry; without recursion, because they may lie deeper than Python's stack."""
    inside = [data]
    while inside:
        holder = inside.pop()
        for key, value in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
            yield holder, key
            if isinstance(value, dict | list):
                inside.append(value)


def weird(draw: random.Random) -> Any:
    """A copy: what is changed in one recipe must not be in the next, nor in itself."""
    return copy.deepcopy(draw.choice(WEIRD))


def replace(draw: random.Random, data: Any) -> None:
    holder, key = entry(draw, data)
    holder[key] = weird(draw)


def remove(draw: random.Random, data: Any) -> None:
    holder, key = entry(draw, data)
    del holder[key]


def insert(draw: random.Random, data: Any) -> None:
    holder, _ = entry(draw, data)
    if isinstance(holder, dict):
        holder[draw.choice(("stepz", "name", "", "a.b", "class", 3, None, "é"))] = weird(draw)
    else:
        holder.append(weird(draw))


def move(draw: random.Random, data: Any) -> None:
    """Put a copy of one entry in the place of another."""
    (one, first), (other, second) = entry(draw, data), entry(draw, data)
    other[second] = yaml.safe_load(written(one[first]))


def nest(draw: random.Random, data: Any) -> None:
    holder, key = entry(draw, data)
    value = holder[key]
    for _ in range(draw.choice((1, 3, 30, 150))):
        value = [value] if draw.random() < 0.5 else {"name": value}
    holder[key] = value


def scale(draw: random.Random, data: Any) -> None:
    """Make a number another one."""
    holder, key = entry(draw, data)
    if isinstance(holder[key], int | float):
        holder[key] = holder[key] * draw.choice((-1, 0, 0.5, 1000, 10**9, 10**20))


def swap(draw: random.Random, data: Any) -> None:
    """Another component in the place of one, fields and all."""
    kind = draw.choice(list(PLACES))
    made = component(draw, kind)
    data[PLACES[kind]] = [made] if kind in LISTED else made


MUTATIONS: tuple[Callable[[random.Random, Any], None], ...] = (
    *(replace, replace, replace, remove, insert, move, nest, scale, scale, swap, swap),
)


def grown(draw: random.Random, base: str) -> str:
    """With random components, whose fields are mostly left alone, in most sections."""
    data = yaml.safe_load(base)
    for kind, place in PLACES.items():
        if draw.random() < 0.4:
            made = [component(draw, kind) for _ in range(draw.choice((1, 1, 2)))]
            data[place] = made if kind in LISTED else made[0]
    return written(data)


def component(draw: random.Random, kind: str) -> dict[str, Any]:
    """A component of a kind, with what it requires and perhaps a field that is out of range."""
    from fw.registry import installed

    made = draw.choice(installed().of_kind(kind))
    fields: dict[str, Any] = {"name": made.name}
    for field, info in made.model_fields.items():
        if info.is_required() and info.examples:
            fields[field] = plain(info.examples[0])
        if draw.random() < 0.1:
            fields[field] = draw.choice((*values(info.annotation), *WEIRD))
        elif draw.random() < 0.2:
            fields[field] = draw.choice((1, 2, 3, 8, 0.5, "x", [0.1, 1.0], True, None))
    return fields


def scribbled(draw: random.Random, base: str) -> str | bytes:
    """The text with lines and bytes lost, doubled, moved and put in."""
    lines = base.splitlines()
    for _ in range(draw.randint(1, 5)):
        at = draw.randrange(len(lines))
        how = draw.randrange(6)
        if how == 0:
            del lines[at]
        elif how == 1:
            lines.insert(draw.randrange(len(lines)), lines[at])
        elif how == 2:
            lines[at] = draw.choice((" ", "\t", "  ")) + lines[at]
        elif how == 3:
            lines.insert(at, draw.choice(TOKENS))
        elif how == 4:
            cut = draw.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:cut] + draw.choice(TOKENS) + lines[at][cut:]
        else:
            lines[at] = lines[at][: draw.randrange(len(lines[at]) + 1)]
        lines = lines or [""]
    text = "\n".join(lines) + "\n"
    how = draw.randrange(8)
    if how == 0:
        return text.encode(draw.choice(("utf-16", "utf-32", "utf-8-sig", "utf-16-le")))
    if how == 1:
        data = bytearray(text.encode())
        for _ in range(draw.randint(1, 10)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        return bytes(data)
    return text


TOKENS = (
    *(
        "&a",
        "*a",
        "!!python/object:os.system",
        "!!int",
        "<<: *x",
        "---",
        "...",
        "%YAML 9.9",
        "? ",
        "- ",
    ),
    *(
        ": ",
        "{",
        "}",
        "[",
        "]",
        "|",
        ">",
        "'",
        '"',
        "#",
        "@",
        "`",
        "\\",
        "\0",
        "\x7f",
        "\ufeff",
        "\u2028",
    ),
    *(
        "0x10",
        "0o7",
        "1_000",
        "12:30:45",
        "2001-01-01",
        "yes",
        "NO",
        ".inf",
        "-.INF",
        ".NaN",
        "+1",
        "1e999",
    ),
)


def raw(draw: random.Random) -> bytes:
    """Bytes, or pieces of YAML in no order."""
    if draw.random() < 0.5:
        return draw.randbytes(draw.randint(0, 2000))
    return " ".join(draw.choice(TOKENS) for _ in range(draw.randint(0, 200))).encode()


def big(draw: random.Random) -> str:
    """Much of the same: deep, long or wide."""
    size = draw.choice((100_000, 300_000))
    return draw.choice(
        (
            "[" * size,
            "a:\n" + "- 1\n" * size,
            "{a: " * size,
            "".join(f"k{number}: 1\n" for number in range(size // 2)),
            "fw: 1\nname: " + "x" * size * 5,
            "- " * size,
            "[" + "{}," * size + "]",
        )
    )
