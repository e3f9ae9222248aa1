"""Metrics and probes as plugin API 1 had them: they work for one more release, aloud.

What is written for version 1 becomes what this fw calls when its class statement is executed, and
not when the plugin is admitted: worker processes and a plugin's own tests import components
without any registry. Fields, and so keys, stay as they were. `api` marks such a class; the registry
refuses it of a plugin that says it was made for version 2.

To drop version 1, delete this file, what names it, core/conditioning.py, and raise OLDEST in
registry/api.py.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from torch import Tensor

from fw.core.types import Reference

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

Scores = dict[str, float]


@dataclass(frozen=True)
class Asked(Reference):
    """The reference as version 1 had it: with the classes that samples were asked for, (n,)."""

    asked: Tensor | None = None


class OldMetrics(ModelMetaclass):
    """Lets a metric's `compare(reference, fake)` take what there is now: nothing is prepared."""

    def __new__(
        cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **more: Any
    ) -> type:
        compare = namespace.get("compare")
        if inspect.isfunction(compare) and takes_two(compare):
            namespace = {**namespace, "compare": as_now(compare), "api": 1}
        return completed(super().__new__(cls, name, bases, namespace, **more))


def takes_two(method: Callable[..., Any]) -> bool:
    """Whether it takes a reference and features alone, beside itself."""
    parameters = inspect.signature(method).parameters.values()
    return len(parameters) == 3 and all(
        each.kind is each.POSITIONAL_OR_KEYWORD for each in parameters
    )


def as_now(compare: Callable[[Any, Reference, Tensor], Scores]) -> Callable[..., Scores]:
    @functools.wraps(compare)
    def called(
        self: Any, prepared: Reference, fake: Tensor, wanted: Tensor | None = None
    ) -> Scores:
        if isinstance(prepared, Asked):  # a subclass calls this one
            return compare(self, prepared, fake)
        known = (prepared.train, prepared.held_out, prepared.conditions)
        return compare(self, Asked(*known, wanted), fake)

    return called


READERS: dict[str, type] = {}
"""The class that takes the place of `Probe`, by what version 1 called `reads`."""


class OldProbes(ModelMetaclass):
    """Gives a class that names `Probe` alone, and does not say how it reads, the base for its
    `reads`."""

    def __new__(
        cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **more: Any
    ) -> type:
        if "read" in namespace or not any("kind" in vars(base) for base in bases):
            return completed(super().__new__(cls, name, bases, namespace, **more))
        reads = namespace.get("reads", "features")
        bases = tuple(READERS[reads] if "kind" in vars(base) else base for base in bases)
        rest = {key: value for key, value in namespace.items() if key != "reads"}
        made: Any = completed(super().__new__(cls, name, bases, {**rest, "api": 1}, **more))
        made.reads = reads  # which it may have set without an annotation, as of a class variable
        return made


def completed(made: Any) -> Any:
    """The class, with types that are local to the function in which it stands: pydantic looks for
    them where the metaclass was called, which is here."""
    if not made.__pydantic_complete__:
        made.model_rebuild(raise_errors=False, _parent_namespace_depth=4)
    return made
