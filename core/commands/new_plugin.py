"""`fw new-plugin`: a complete package from the template of a kind, clean and tested before its
author changes a line.

A template is a working module in `fw.core.templates` with a class `Example`, and a test of it in
`fw.core.templates.tests`. Here they get their names, and what every package has.
"""

from __future__ import annotations

import builtins
import importlib.util
import io
import keyword
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from fw.core import templates
from fw.core.errors import FwError
from fw.core.kinds import TABLE, Kind

LONGEST_NAME = 40
"""Longer names would break the lines of a package that is formatted as it is."""

RESERVED = frozenset({"fw", "tests", "setup", "conftest"})
"""Module names that mean something else to Python's tools."""

CHECKS = ("ruff check", "ruff format --check", "mypy", "pytest")


@dataclass(frozen=True)
class Plugin:
    """The names of a plugin that is to be written: `fw-sharpen`, `guidance`, `sharpen`."""

    distribution: str
    template: str
    component: str

    @property
    def kind(self) -> str:
        return self.row.type.kind

    @property
    def row(self) -> Kind:
        """What there is to know of the kind."""
        return next(row for row in TABLE if row.name == self.template)

    @property
    def module(self) -> str:
        return self.distribution.replace("-", "_")

    @property
    def class_name(self) -> str:
        return "".join(word[:1].upper() + word[1:] for word in self.component.split("_"))


def new_plugin(name: str, template: str, into: Path, component: str | None = None) -> list[Path]:
    """Write the package `into/name` and return its files; FwError if a name does not do or
    something is there."""
    plugin = Plugin(name, template, proposed(name) if component is None else component)
    check_names(plugin)
    folder = into / name
    contents = package(plugin)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FwError(
                f"{folder} is there already, and nothing is overwritten: choose another name or "
                "--into"
            )
        for path, text in contents.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise FwError(f"cannot write to {error.filename or folder}: {error.strerror}") from None
    return [folder / path for path in contents]


def proposed(name: str) -> str:
    """The component's name where none is given: `self_sharpen` for fw-self-sharpen."""
    return name.removeprefix("fw-").replace("-", "_")


def check_names(plugin: Plugin) -> None:
    if plugin.template not in templates.names():
        raise FwError(
            f"there is no kind {plugin.template!r}; --kind is one of {', '.join(templates.names())}"
        )
    if reason := next(unfit_names(plugin), None):
        raise FwError(reason)


def unfit_names(plugin: Plugin) -> Iterator[str]:
    """Why the names cannot be used, the most basic reason first."""
    name, component = plugin.distribution, plugin.component
    if len(name) > LONGEST_NAME or not re.fullmatch(r"[a-z]([a-z0-9_-]*[a-z0-9])?", name):
        yield (
            f"{name!r} cannot name a package: take at most {LONGEST_NAME} lower-case letters, "
            "digits, '-' and '_', a letter first and no '-' or '_' last, such as fw-sharpen"
        )
    if len(component) > LONGEST_NAME or not re.fullmatch(r"[a-z][a-z0-9_]*", component):
        yield (
            f"{component!r} cannot name a component: give --component with at most {LONGEST_NAME} "
            "lower-case letters, digits and '_', a letter first, such as sharpen"
        )
    if plugin.module in RESERVED or is_taken(plugin.module):
        yield (
            f"the module would be called {plugin.module}, and there is one of that name: choose "
            "another name"
        )
    if keyword.iskeyword(plugin.module) or keyword.iskeyword(plugin.class_name):
        word = plugin.module if keyword.iskeyword(plugin.module) else plugin.class_name
        yield f"'{word}' is a keyword of Python, so nothing can be called that: choose another name"
    if hasattr(builtins, plugin.class_name) or plugin.class_name in words(plugin.template):
        yield (
            f"the class would be called {plugin.class_name}, which the module needs for something "
            "else: choose another --component"
        )
    from fw.registry import installed

    if provider := installed().providers.get((plugin.kind, component)):
        yield (
            f"there is a {plugin.kind} '{component}' already, from {provider}: choose another "
            "--component"
        )


def is_taken(module: str) -> bool:
    """Whether importing the name gives something else; a folder of that name in the working
    directory does not."""
    if module in sys.stdlib_module_names:
        return True
    found = importlib.util.find_spec(module)
    return found is not None and found.origin is not None


def words(template: str) -> set[str]:
    """All identifiers of a template and its test."""
    tokens = tokenize.generate_tokens(
        io.StringIO(source(template) + test_source(template)).readline
    )
    return {token.string for token in tokens if token.type == tokenize.NAME} - {"Example"}


def package(plugin: Plugin) -> dict[str, str]:
    """The files of the package: path -> text."""
    names = {
        "distribution": plugin.distribution,
        "module": plugin.module,
        "component": plugin.component,
        "kind": plugin.kind,
        "a_kind": f"{'an' if plugin.kind[0] in 'aeiou' else 'a'} {plugin.kind}",
        "recipe": plugin.row.recipe_line(plugin.component),
        "checks": "\n".join(CHECKS),
        "steps": "\n".join(f"      - run: {command}" for command in CHECKS),
    }
    return {
        "pyproject.toml": Template(PYPROJECT).substitute(names),
        f"{plugin.module}.py": named(source(plugin.template), plugin),
        f"tests/test_{plugin.module}.py": named(test_source(plugin.template), plugin),
        "README.md": Template(README).substitute(names),
        ".github/workflows/ci.yml": Template(CI).substitute(names),
        ".gitignore": GITIGNORE,
    }


def named(text: str, plugin: Plugin) -> str:
    """A template's source under the plugin's names. The module's import moves to the end, where
    local ones are."""
    text = text.replace('"example"', f'"{plugin.component}"')
    imported = f"from fw.core.templates.{plugin.template} import Example\n"
    if imported in text:
        text = text.replace(imported, "")
        last = [*re.finditer(r"^from fw\..*\n", text, re.MULTILINE)][-1].end()
        text = f"{text[:last]}\nfrom {plugin.module} import Example\n{text[last:]}"
    return re.sub(r"\bExample\b", plugin.class_name, text)


def source(template: str) -> str:
    return (files("fw.core.templates") / f"{template}.py").read_text("utf-8")


def test_source(template: str) -> str:
    return (files("fw.core.templates") / "tests" / f"{template}.py").read_text("utf-8")


PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "$distribution"
version = "0.1.0"
description = "A plugin for fw: the $kind $component."
readme = "README.md"
requires-python = ">=3.11"
# license = "..."  # yours to choose: an SPDX expression, and a file LICENSE with its text
# fw is not among them: it is on no package index, so pip would install a stranger of that name.
dependencies = []

[project.optional-dependencies]
test = ["pytest>=8.3", "ruff>=0.9", "mypy>=1.14"]

[project.entry-points.fw]
$component = "$module"

[tool.setuptools]
py-modules = ["$module"]

[tool.pytest.ini_options]
testpaths = ["tests"]
pythonpath = ["."]

[tool.ruff]
line-length = 100
target-version = "py311"

[tool.ruff.lint]
select = ["B", "C4", "E", "F", "I", "N", "PT", "PTH", "RET", "RUF", "SIM", "UP", "W"]
ignore = ["N803", "N806"]  # K, N and D are dimensions

[tool.ruff.lint.isort]
known-first-party = ["fw"]
known-local-folder = ["$module"]

[tool.mypy]
python_version = "3.11"
files = ["$module.py", "tests"]
plugins = ["pydantic.mypy"]
check_untyped_defs = true
disallow_untyped_defs = true
warn_redundant_casts = true

[[tool.mypy.overrides]]
# mypy does not see an fw that was installed with --editable; everything of it is then Any.
module = ["fw.*"]
ignore_missing_imports = true
follow_imports = "silent"
"""

README = """\
# $distribution

A plugin for fw that brings $a_kind, `$component`. All of it is in [$module.py]($module.py).

## Install

Into an environment that has fw:

```sh
python -m pip install --editable ".[test]"
fw plugins $component
```

## Use

In a recipe:

```yaml
$recipe
```

## Check

```sh
$checks
```

The first test runs fw's contract kit, which tells all that a $kind must keep to and this one does
not. [.github/workflows/ci.yml](.github/workflows/ci.yml) runs the same commands. It installs fw
from the repository variable `FW`, a requirement as pip takes it: a wheel's address, or `fw @ git+`
and the address of a repository.

When the same fields begin to give other results, raise `version: ClassVar[int] = 2` in the class:
stored work that used it is then done again. `FW_API` is the version of fw's plugin interface that
the module was written for.

## Publish

Choose a license and name it in pyproject.toml, then build a wheel:

```sh
python -m pip wheel --no-deps --wheel-dir dist .
```

Give the wheel away or upload it to a package index. Whoever installs it beside fw can name
`$component` in a recipe. Keep fw out of `dependencies` for as long as it is on no index.
"""

CI = """\
name: ci
on: [push, pull_request]
permissions:
  contents: read

jobs:
  check:
    runs-on: ubuntu-latest
    env:
      OMP_NUM_THREADS: 1
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.11"
      - name: Install fw and this package
        env:
          FW: $${{ vars.FW }}
        run: |
          : "$${FW:?set the repository variable FW to a requirement for fw}"
          python -m pip install "$${FW}" --editable ".[test]"
$steps
"""

GITIGNORE = """\
__pycache__/
*.egg-info/
.hypothesis/
.mypy_cache/
.pytest_cache/
.ruff_cache/
.venv/
build/
dist/
"""
