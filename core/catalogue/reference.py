"""The reference page of a kind, made from its abstract class, its contract and its template; and
one of the types.

python -m fw.core.catalogue.reference docs/kinds
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from textwrap import dedent
from typing import Any, TypeGuard

from fw.core import kinds, types
from fw.core.catalogue import matrix
from fw.core.catalogue.facts import kind_facts, public_name, summary
from fw.core.catalogue.words import inline
from fw.core.job import Job
from fw.core.testing.contract import Clause, sentence
from fw.registry import Component, Registry

KINDS = {row.name: row for row in kinds.TABLE if row.template}


def page(name: str, registry: Registry) -> str:
    """The Markdown page of a kind; `registry` says which components come with fw."""
    kind = KINDS[name].type
    facts = kind_facts(kind)
    own = [method for method in facts["methods"] if not shared(kind, method["name"])]
    required = [method for method in own if method["required"]]
    optional = [method for method in own if not method["required"]]
    parts = [
        f"# {name}",
        f"*Made by `make reference` from `{facts['class']}`, its contract and its template. Change "
        "those.*",
        facts["docs"],
        *(["## To write"] if required else []),
        *(described(method) for method in required),
        "## May be overridden",
        "And what [every component](../plugins.md#rules) may: `requires`, `provides`, "
        "`own_supervision`, `preflight`, `identity`.",
        *(described(method) for method in optional),
        *settings(kind),
        *inherited_fields(facts["fields"]),
        "## The contract",
        "What `fw plugins --check` and `fw.core.testing.check` check, beside what they check of "
        "any component:",
        "\n".join(f"* {sentence(clause)}." for clause in clauses(name)),
        "## A complete plugin",
        f"`fw new-plugin fw-example --kind {name}` begins with this module.",
        f"```python\n{template(name)}```",
        *built_in(kind, registry),
    ]
    return "\n\n".join(parts) + "\n"


def shared(kind: type[Component], name: str) -> bool:
    """Whether every component has the method, as it is."""
    return inspect.getattr_static(kind, name) is inspect.getattr_static(Component, name, None)


def described(method: dict[str, str]) -> str:
    signature = method["signature"].replace("@property ", "@property\n")
    return f"```text\n{signature}\n```\n\n{method['docs']}"


def settings(kind: type[Component]) -> Iterator[str]:
    """The class variables of the kind and of the kinds that it extends, with the text below
    each."""
    variables: dict[str, str] = {}
    for owner in reversed(kind.__mro__[: kind.__mro__.index(Component)]):
        variables |= {
            name: meaning or variables.get(name, "") for name, meaning in class_variables(owner)
        }
    if variables:
        yield "## Class variables"
        lines = ["| name | default | meaning |", "|---|---|---|"]
        lines += [
            f"| `{name}` | `{text_of(getattr(kind, name))}` | {meaning} |"
            for name, meaning in variables.items()
        ]
        yield "\n".join(lines)


def text_of(value: object) -> str:
    return ", ".join(sorted(value)) if isinstance(value, frozenset) else inline(value)


def class_variables(owner: type) -> Iterator[tuple[str, str]]:
    """Name and meaning of each class variable; the meaning is the text below it."""
    [body] = [
        node.body
        for node in ast.parse(dedent(inspect.getsource(owner))).body
        if isinstance(node, ast.ClassDef)
    ]
    for line, below in zip(body, [*body[1:], None], strict=True):
        if is_class_variable(line) and ast.unparse(line.target) != "kind":
            text = below.value if isinstance(below, ast.Expr) else None
            meaning = text.value if isinstance(text, ast.Constant) else ""
            yield ast.unparse(line.target), " ".join(str(meaning).split())


def is_class_variable(line: ast.stmt) -> TypeGuard[ast.AnnAssign]:
    return isinstance(line, ast.AnnAssign) and "ClassVar" in ast.unparse(line.annotation)


def inherited_fields(fields: list[dict[str, Any]]) -> Iterator[str]:
    if fields:
        yield "## Fields that all of them have"
        lines = ["| field | type | default | meaning |", "|---|---|---|---|"]
        for field in fields:
            default = "required" if field["required"] else f"`{inline(field['default'])}`"
            lines.append(
                f"| `{field['name']}` | {field['type']} | {default} | {field['description']} |"
            )
        yield "\n".join(lines)


def clauses(name: str) -> list[Clause]:
    """The clauses of the kind, and of the kind that it extends."""
    modules = KINDS[name].contracts
    return [
        clause
        for module in modules
        for clause in import_module(f"fw.core.testing.{module}").CLAUSES
    ]


def template(name: str) -> str:
    return files("fw.core.templates").joinpath(f"{name}.py").read_text("utf-8")


def built_in(kind: type[Component], registry: Registry) -> Iterator[str]:
    mine = [each for each in registry.components.values() if issubclass(each, kind)]
    if mine:
        yield "## Comes with fw"
        lines = ["| name | what it does |", "|---|---|"]
        lines += [
            f"| `{each.name}` | {in_a_cell(summary(each.__doc__ or ''))} |"
            for each in sorted(mine, key=lambda each: each.name)
        ]
        yield "\n".join(lines)


def in_a_cell(text: str) -> str:
    """The text in a cell of a Markdown table."""
    return text.replace("|", r"\|")


def builtins() -> Registry:
    """The components that come with fw, and no others."""
    from importlib import metadata

    from fw.registry import discover

    return discover(entry for entry in metadata.entry_points(group="fw") if entry.name == "builtin")


PASSED_AROUND: tuple[type, ...] = (
    types.ImageSet,
    types.Observations,
    types.Annotation,
    types.ConditionSpec,
    types.Reference,
    types.Examples,
    kinds.Coefficients,
    kinds.Seen,
    kinds.Reader,
    kinds.Glance,
    kinds.Reading,
    Job,
)


def types_page() -> str:
    """The Markdown page of what components take and return."""
    parts = [
        "# What components pass around",
        "*Made by `make reference` from `fw.core.types` and `fw.core.job`. Change those.*",
        "Images at every boundary are uint8 (N, C, H, W) in 0..255; inside diffusion they are "
        "float in -1..1; sigma\n"
        "is the noise's standard deviation in that unit; features are float32 (N, D). Features, "
        "labels and\n"
        "annotations are on the CPU.",
    ]
    for cls in PASSED_AROUND:
        fields = {
            name: hint
            for name, hint in inspect.get_annotations(cls).items()
            if not name.startswith("_")
        }
        listed = ", ".join(
            f"`{name}: {getattr(hint, '__forward_arg__', hint)}`" for name, hint in fields.items()
        )
        docs = inspect.cleandoc(cls.__doc__ or "").replace("See the module's docstring. ", "")
        parts += [
            f"## {cls.__name__}",
            f"`{public_name(cls)}`" + (f": {listed}" if listed else ""),
            docs,
        ]
        for name, value in vars(cls).items():
            function = (
                value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            )
            if inspect.isfunction(function) and function.__doc__ and not name.startswith("_"):
                docs = inspect.cleandoc(function.__doc__)
                parts.append(
                    described({"signature": signature(name, value, function), "docs": docs})
                )
    return "\n\n".join(parts) + "\n"


def signature(name: str, value: object, function: Callable[..., Any]) -> str:
    text = f"{name}{inspect.signature(function)}".replace("'", "")
    return f"@property {text}" if isinstance(value, property) else text


def write(folder: Path) -> None:
    """Write every page into the folder, and the page of all pairs beside it."""
    registry = builtins()
    for name in KINDS:
        (folder / f"{name}.md").write_text(page(name, registry), encoding="utf-8")
    (folder / "types.md").write_text(types_page(), encoding="utf-8")
    (folder.parent / "matrix.md").write_text(matrix.page(registry), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
