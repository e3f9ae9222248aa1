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

from fw.core.kinds.floor import mean_of_sets
from fw.core.types import Reference

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

Scores = dict[str, float]


@dataclass(frozen=True)
class OldReference(Reference):
    """The reference as version 1 had it: with the classes that samples were asked for, (n,)."""

    asked: Tensor | None = None


class OldMetrics(ModelMetaclass):
    """Lets a metric's `compare(reference, fake)` take what there is now: nothing is prepared."""

    def __new__(
        cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **more: Any
    ) -> type:
        compare = stated("compare", namespace, bases)
        if not inspect.isfunction(compare) or not takes_two(compare):
            return completed(super().__new__(cls, name, bases, namespace, **more))
        now = {
            "measures": property(nothing),
            "prepare": unprepared,
            "by_chance": unknown,
            "floor": of_held_out,
            **namespace,
            "compare": as_now(compare),
        }
        return marked(completed(super().__new__(cls, name, bases, now, **more)))


def unprepared(self: Any, reference: Reference) -> Reference:
    """What version 1 did before `compare`, also where it inherits from a metric that prepares."""
    return reference


def nothing(self: Any) -> bool:
    """Version 1 has nothing kept of real images, also where it inherits from a metric that has."""
    return False


def unknown(self: Any, prepared: Reference, count: int) -> dict[str, tuple[float, float]]:
    """Of nothing that version 1 scored are limits known, also where it inherits from a metric that
    has some."""
    return {}


def of_held_out(
    self: Any, prepared: Reference, held_out: Tensor, count: int, wanted: Tensor | None = None
) -> Any:
    """Version 1 has the floor of any metric, also where it inherits from one that has its own."""
    return mean_of_sets(self.compare, prepared, held_out, count, wanted)


def stated(name: str, namespace: dict[str, Any], bases: tuple[type, ...]) -> Any:
    """What the class statement or a mixin says; None if it is a base of fw's that does."""
    mixins = (
        each for base in bases for each in base.__mro__ if not isinstance(each, ModelMetaclass)
    )
    owners = (namespace, *map(vars, mixins))
    return next((owner[name] for owner in owners if name in owner), None)


def marked(made: Any) -> Any:
    """The class, known to the registry as one for version 1."""
    made._api = 1
    return made


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
        if isinstance(prepared, OldReference):  # a subclass calls this one
            return compare(self, prepared, fake)
        known = (prepared.train, prepared.held_out, prepared.conditions)
        return compare(self, OldReference(*known, asked=wanted), fake)

    return called


READERS: dict[str, type] = {}
"""The class that takes the place of `Probe`, by what version 1 called `reads`."""


class OldProbes(ModelMetaclass):
    """Gives a class that names `Probe` alone, and does not say how it reads, the base for its
    `reads`."""

    def __new__(
        cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **more: Any
    ) -> type:
        reads = stated("reads", namespace, bases)
        direct = any("kind" in vars(base) for base in bases)
        if "read" in namespace or not direct:
            check_reads(name, reads, bases)
            kept = {key: value for key, value in namespace.items() if key != "reads"}
            return completed(super().__new__(cls, name, bases, kept, **more))
        reads = "features" if reads is None else reads
        bases = tuple(READERS[reads] if "kind" in vars(base) else base for base in bases)
        rest = {key: value for key, value in namespace.items() if key != "reads"}
        made = marked(completed(super().__new__(cls, name, bases, rest, **more)))
        made.reads = reads  # which it may have set without an annotation, as of a class variable
        return made


def check_reads(name: str, reads: object, bases: tuple[type, ...]) -> None:
    """TypeError where a class says that it reads something else than what it inherits from."""
    inherits = next(
        (kind for kind, known in READERS.items() if any(issubclass(base, known) for base in bases)),
        None,
    )
    if reads in READERS and reads != inherits:
        raise TypeError(
            f"probe {name} reads {reads}, and what it inherits from reads {inherits}: subclass "
            f"{READERS[str(reads)].__name__} (docs/plugins.md lists what changed)"
        )


def completed(made: Any) -> Any:
    """The class, with types that are local to the function in which it stands: pydantic looks for
    them where the metaclass was called, which is here."""
    if not made.__pydantic_complete__:
        made.model_rebuild(raise_errors=False, _parent_namespace_depth=4)
    return made
