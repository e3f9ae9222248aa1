"""Text files and text pipes name their encoding: the locale's is not UTF-8 everywhere. Ruff sees
only some of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [
    file
    for folder in ("core", "plugins", "registry")
    for file in sorted((ROOT / folder).rglob("*.py"))
]

PROCESSES = {"run", "Popen", "check_output", "check_call", "call"}


def unnamed(tree: ast.AST) -> Iterator[int]:
    """The lines of calls that handle text in the locale's encoding."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and handles_text(node) and not names_encoding(node):
            yield node.lineno


def called(node: ast.Call) -> tuple[str, bool]:
    """The last word of what is called, and whether it is a method or a module's function."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr, True
    return getattr(node.func, "id", ""), False


def handles_text(node: ast.Call) -> bool:
    name, is_method = called(node)
    options = {keyword.arg: keyword.value for keyword in node.keywords}
    arguments = [*node.args, *options.values()]
    literals = [
        each.value
        for each in arguments
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    ]
    modes = [each for each in literals if each and set(each) <= set("rwaxbt+")]
    binary = any("b" in mode for mode in modes)
    if name in ("read_text", "write_text"):
        return is_method
    if name == "open" and is_method:
        return not arguments or (opens_path(node) and bool(modes) and not binary)
    if name in ("open", "fdopen"):
        return not binary
    if name in ("NamedTemporaryFile", "TemporaryFile"):
        return bool(modes) and not binary
    return name in PROCESSES and bool({"text", "universal_newlines", "errors"} & options.keys())


def opens_path(node: ast.Call) -> bool:
    """Whether this may be a path's own method, whose first argument is the mode: others of that
    name, as an archive's, take what is to be opened first."""
    return not node.args or isinstance(node.args[0], ast.Constant)


def names_encoding(node: ast.Call) -> bool:
    literals = {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
    return "utf-8" in literals or any(keyword.arg == "encoding" for keyword in node.keywords)


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_every_text_file_and_text_pipe_names_its_encoding(file: Path) -> None:
    assert not list(unnamed(ast.parse(file.read_text(encoding="utf-8"))))


@pytest.mark.parametrize(
    ("code", "found"),
    [
        *[
            ("path.read_text()", [1]),
            ("path.write_text(x)", [1]),
            ("open(p)", [1]),
            ("path.open('w')", [1]),
        ],
        *[
            ("subprocess.run(c, text=True)", [1]),
            ("Popen(c, text=True)", [1]),
            ("NamedTemporaryFile('w')", [1]),
        ],
        *[
            ("path.read_text(encoding='utf-8')", []),
            ("open(p, 'rb')", []),
            ("path.open(mode='wb')", []),
        ],
        *[
            ("tracker.open(run)", []),
            ("archive.open(entry, 'w')", []),
            ("os.open(p, os.O_RDONLY)", []),
            ("path.read_text('utf-8')", []),
        ],
        *[("subprocess.run(c)", []), ("TemporaryFile()", []), ("write_text(path, text)", [])],
    ],
)
def test_the_search_finds_what_it_is_for(code: str, found: list[int]) -> None:
    assert list(unnamed(ast.parse(code))) == found
