"""A contract is a list of clauses; a clause is a sentence and a function that fails where it does not hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from fw.core.errors import FwError
from fw.core.kinds import Joint
from fw.core.testing.global_state import untouched
from fw.registry import Component
from fw.registry.discovery import in_one_line

KINDS = ("annotator", "backbone", "dataset", "encoder", "guidance", "metric", "process", "sampler", "tracker")
"""The kinds that have a contract of their own here, each in a file of its name."""

Clause = Callable[[Any], None]
"""Takes the component, raises AssertionError with the reason. The first line of its docstring is the sentence."""


class ContractViolated(AssertionError):
    """A component does not keep to the contract of its kind; one line per violated clause."""


def check(component: Component) -> None:
    """Raise ContractViolated unless the component keeps to the contract of its kind."""
    found = list(violations(component))
    if found:
        name = f"{component.kind} '{component.name}'"
        raise ContractViolated("\n".join([f"{name} breaks {len(found)} of {len(clauses(component))} clauses:", *found]))


def violations(component: Component) -> Iterator[str]:
    """`sentence: reason` for every clause that the component violates."""
    for clause in clauses(component):
        try:
            with untouched(component):
                clause(component)
        except AssertionError as error:
            yield f"{sentence(clause)}: {error}"
        except (Exception, SystemExit) as error:
            said = str(error) if isinstance(error, FwError) else in_one_line(error)
            yield f"{sentence(clause)}: it raised {said}"


def sentence(clause: Clause) -> str:
    return (clause.__doc__ or clause.__name__).strip().partition("\n")[0].rstrip(".")


def clauses(component: Component) -> list[Clause]:
    """What is asked of the component: what is asked of all, and what is asked of its kind."""
    modules = ["common"]
    if component.kind in KINDS:
        modules.append(component.kind)
    if isinstance(component, Joint):
        modules.append("joint")
    return [clause for module in modules for clause in import_module(f"fw.core.testing.{module}").CLAUSES]
