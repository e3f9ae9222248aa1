"""`fw plugins` on a terminal or in a pipe: the catalogue as tables and text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from fw.core.catalogue.check import verdicts
from fw.core.catalogue.facts import Selection, document, find
from fw.core.catalogue.words import inline
from fw.core.files.strict import strict
from fw.core.messages.escaping import visible, visible_lines
from fw.registry import Registry
from fw.registry.api import API, notice

UNFOLDED = 100_000
"""Columns of a pipe: no line is folded, so that grep gets whole lines."""

PROSE = 40
"""Columns that are left for sentences and the frame, or names are folded, too."""


@dataclass(frozen=True)
class Request:
    """The arguments of `fw plugins`."""

    name: str | None = None
    kind: str | None = None
    files: Sequence[Path] = ()
    check: bool = False
    as_json: bool = False


def answer(request: Request, registry: Registry, stdout: Console) -> bool:
    """Print the answer. False if a check of a component or a plugin fails."""
    selection = find(registry, request.name, request.kind)
    if request.check:
        to_check = checked_part(selection, request, registry)
        return show_verdicts(verdicts(to_check, registry, Console(stderr=True)), request, stdout)
    if request.as_json:
        print(strict(document(selection, registry)), file=stdout.file)
    else:
        show(document(selection, registry), stdout, selection.single, request.name is not None)
    return True


def checked_part(selection: Selection, request: Request, registry: Registry) -> Selection:
    """What is to be checked. If files were given, only their components; broken plugins only if
    nothing was given."""
    if request.name is not None or not (request.files or request.kind):
        return selection
    if not request.files:
        return selection._replace(broken=[])
    files = [file.absolute() for file in request.files]
    theirs = [
        each
        for each in selection.components
        if registry.providers[each.kind, each.name].root in files
    ]
    return selection._replace(components=theirs, broken=[])


def show_verdicts(verdicts: Iterable[dict[str, Any]], request: Request, stdout: Console) -> bool:
    """A line per component as soon as it is checked, and under it a line per violated clause; or
    one JSON document."""
    done = []
    for verdict in verdicts:
        done.append(verdict)
        if not request.as_json:
            what = (
                f"{verdict['kind']} {verdict['name']}"
                if verdict["kind"]
                else f"plugin {verdict['plugin']}"
            )
            skipped = f": {verdict['reasons'][0]}" if verdict["status"] == "skipped" else ""
            say(stdout, f"{verdict['status']:8} {what}{skipped}")
            for reason in verdict["reasons"] if verdict["status"] == "failed" else ():
                say(stdout, f"         {what}: {reason}")
    if request.as_json:
        print(strict({"api": API, "checks": done}), file=stdout.file)
    return all(verdict["status"] != "failed" for verdict in done)


def show(document: Mapping[str, Any], console: Console, single: bool, tracebacks: bool) -> None:
    """Print the facts of a selection (catalogue/facts.py); its components in full if `single`, else
    as a table.

    `tracebacks`: whether to print those of broken plugins, too.
    """
    if not console.is_terminal:
        console.width = UNFOLDED
    plugins = {plugin["plugin"]: plugin for plugin in document["plugins"]}
    if document["kind"]:
        show_kind(document["kind"], console)
    if single:
        for component in document["components"]:
            show_component(component, plugins[component["plugin"]], console)
    elif document["components"]:
        show_table(document["components"], console)
    for plugin in plugins.values():
        if reason := notice(plugin["api"]):
            say(console, f"outdated: {titled(plugin)}: {reason}")
    for broken in document["broken"]:
        say(console, f"broken: {titled(broken)}: {broken['reason']}")
        if tracebacks and broken["traceback"]:
            say(console, broken["traceback"].rstrip())


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print a text as it is, unfolded."""
    console.print(Text(visible_lines(text), style=style or ""), soft_wrap=True)


def titled(plugin: Mapping[str, Any]) -> str:
    return f"{plugin['plugin']} ({plugin['distribution']} {plugin['version']})"


def show_table(components: Sequence[Mapping[str, Any]], console: Console) -> None:
    """One line per component, the kind written once."""
    names = [[each[key] for each in components] for key in ("kind", "name", "plugin")]
    roomy = sum(max(map(len, column)) for column in names) + PROSE <= console.width
    table = Table(
        *(Column(title, no_wrap=roomy, overflow="fold") for title in ("kind", "name", "plugin")),
        Column("what it does", overflow="fold"),
    )
    for kind, group in groupby(components, key=lambda component: component["kind"]):
        table.add_section()
        for number, each in enumerate(group):
            cells = (kind if number == 0 else "", each["name"], each["plugin"], each["summary"])
            table.add_row(*map(Text, map(visible, cells)))
    console.print(table)


def show_component(
    component: Mapping[str, Any], plugin: Mapping[str, Any], console: Console
) -> None:
    say(console, f"{component['kind']} {component['name']}", style="bold")
    say(console, f"plugin  {titled(plugin)}, API {plugin['api']}")
    say(console, f"class   {component['class']}, version {component['version']}\n")
    say(console, indented(component["docs"] or "It has no docstring.") + "\n")
    show_fields(component["fields"], console)
    if component["no_example"]:
        say(console, f"what it requires and provides is not known: {component['no_example']}\n")
    else:
        for what in ("requires", "provides"):
            say(console, f"{what}  {', '.join(component[what]) or 'nothing'}, with these defaults")
        say(console, "")
    say(console, f"in a recipe:\n\n{indented(component['snippet'])}\n")


def show_fields(fields: Sequence[Mapping[str, Any]], console: Console) -> None:
    if not fields:
        say(console, "It has no fields.\n")
        return
    titles = ("field", "type", "bounds", "default", "what it is")
    table = Table(*(Column(title, overflow="fold") for title in titles))
    for field in fields:
        default = "required" if field["required"] else inline(field["default"])
        cells = (
            field["name"],
            field["type"],
            ", ".join(field["bounds"]),
            default,
            field["description"],
        )
        table.add_row(*map(Text, map(visible, cells)))
    console.print(table)
    say(console, "")


def show_kind(kind: Mapping[str, Any], console: Console) -> None:
    """A kind's contract: what a plugin's component has to write, and what it may."""
    say(console, f"kind {kind['kind']}", style="bold")
    say(console, f"class   {kind['class']}\n\n{indented(kind['docs'])}\n")
    for title, required in (("methods to write:", True), ("methods that have a default:", False)):
        chosen = [method for method in kind["methods"] if method["required"] == required]
        if chosen:
            say(console, f"{title}\n")
        for method in chosen:
            say(console, f"  {method['signature']}", style="bold")
            say(console, f"{indented(method['docs'], 6)}\n".lstrip("\n"))
    if kind["settings"]:
        say(console, "class attributes that have a default:\n")
        say(
            console,
            "\n".join(f"  {name} = {inline(value)}" for name, value in kind["settings"].items())
            + "\n",
        )
    if kind["fields"]:
        say(console, "fields that every component of this kind has:\n")
        show_fields(kind["fields"], console)


def indented(text: str, width: int = 2) -> str:
    return "\n".join(" " * width + line if line else "" for line in text.splitlines())
