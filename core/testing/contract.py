"""A contract is a list of clauses; a clause is a sentence and a function that fails where it
does not hold."""

from __future__ import annotations

import inspect
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from fw.core.errors import FwError
from fw.core.kinds import kind_of
from fw.core.testing import common
from fw.core.testing.global_state import Touched, untouched
from fw.registry import Component
from fw.registry.errors import in_one_line

RAISED = ": it raised "

Clause = Callable[[Any], None]
"""Takes the component, raises AssertionError with the reason. Its docstring begins with the
sentence, a paragraph."""


class ContractViolated(AssertionError):
    """A component does not keep to the contract of its kind; one line per violated clause."""


def check(component: Component) -> None:
    """Raise ContractViolated unless the component keeps to the contract of its kind."""
    lines = distinct(violations(component))
    if lines:
        name = f"{component.kind} '{component.name}'"
        raise ContractViolated(
            "\n".join([f"{name} breaks {len(lines)} of {len(clauses(component))} clauses:", *lines])
        )


def violations(component: Component) -> Iterator[str]:
    """`sentence: reason` for every clause that the component violates.

    Where a kind's PREREQUISITE does not hold, the clauses after it would only say so again, and are
    left out.
    """
    for module in contracts(component):
        for clause in module.CLAUSES:
            try:
                with warnings.catch_warnings(), untouched(component):
                    warnings.simplefilter("ignore")
                    clause(component)
                continue
            except Touched as error:
                yield f"{sentence(clause)}: {error}"
                continue
            except AssertionError as error:
                yield f"{sentence(clause)}: {error}"
            except (Exception, SystemExit) as error:
                reason = (
                    str(error)
                    if isinstance(error, FwError)
                    else in_one_line(error) + place(component, error)
                )
                yield f"{sentence(clause)}{RAISED}{reason}"
            if clause is getattr(module, "PREREQUISITE", None):
                break


def distinct(lines: Iterable[str]) -> list[str]:
    """The violations, each exception only once: one bug makes many clauses raise."""
    first: dict[str, str] = {}
    for line in lines:
        first.setdefault(line.partition(RAISED)[2] or line, line)
    return list(first.values())


def place(component: Component, error: BaseException) -> str:
    """` (sharpen.py:12)`, the innermost line of the component's own module that an exception
    came through."""
    file = getattr(sys.modules.get(type(component).__module__), "__file__", None)
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == file
    ]
    return f" ({Path(str(file)).name}:{lines[-1]})" if lines else ""


def sentence(clause: Clause) -> str:
    """The first paragraph of a clause's docstring, on one line and without the full stop."""
    paragraph = inspect.cleandoc(clause.__doc__ or clause.__name__).partition("\n\n")[0]
    return " ".join(paragraph.split()).rstrip(".")


def clauses(component: Component) -> list[Clause]:
    """The clauses that hold for the component: those of every component, and those of its kind."""
    return [clause for module in contracts(component) for clause in module.CLAUSES]


def contracts(component: Component) -> list[Any]:
    """The modules whose clauses are checked, in this order."""
    kind = kind_of(type(component))
    return [
        common,
        *(import_module(f"fw.core.testing.{name}") for name in (kind.contracts if kind else ())),
    ]
