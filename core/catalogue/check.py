"""`fw plugins --check`: the contract kit on what is installed, a verdict per component."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from fw.core.catalogue.example import NoExample, example
from fw.core.catalogue.facts import Selection
from fw.core.errors import MissingFile
from fw.core.messages.escaping import visible
from fw.registry import Component, Registry
from fw.registry.errors import in_one_line

ELSEWHERE = "it may log to a server that others use; give its name to check it"


def verdicts(
    selection: Selection, registry: Registry, console: Console
) -> Iterator[dict[str, Any]]:
    """One verdict per component, then the broken plugins; with a progress bar on `console`, if
    that is a terminal."""
    columns = (
        TextColumn("check {task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
    )
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("", total=len(selection.components))
    several = len(selection.components) > 1
    for component in selection.components:
        logs = component.kind == "tracker"
        bar.update(task, description=visible(f"{component.kind} {component.name}"))
        with bar:  # and not around the loop: the verdict is printed while there is no bar
            status, reasons = (
                ("skipped", [ELSEWHERE]) if logs and several else judged(component, registry)
            )
        bar.advance(task)
        plugin = registry.providers[component.kind, component.name].plugin
        yield verdict(component.kind, component.name, plugin, status, reasons)
    for entry in selection.broken:
        yield verdict(None, None, entry.provider.plugin, "failed", [entry.reason])


def verdict(
    kind: str | None, name: str | None, plugin: str, status: str, reasons: list[str]
) -> dict[str, Any]:
    """JSON. Kind and name are null for a broken plugin, because its components are not known."""
    return {"kind": kind, "name": name, "plugin": plugin, "status": status, "reasons": reasons}


def judged(component: type[Component], registry: Registry) -> tuple[str, list[str]]:
    """`ok`, `failed` with a reason per violated clause, or `skipped` with the file that is
    missing."""
    from fw.core.testing import distinct, violations

    try:
        instance = example(component, registry, quick=True)
        for part in instance.within():
            part.preflight()
    except NoExample as error:
        return "failed", [str(error)]
    except MissingFile as error:
        return "skipped", [str(error)]
    except (Exception, SystemExit) as error:
        return "failed", [f"it raised {in_one_line(error)} before a run"]
    reasons = [" ".join(reason.split()) for reason in distinct(violations(instance))]
    return ("failed" if reasons else "ok"), reasons
