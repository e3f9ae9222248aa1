"""Checks a component class without an instance: that it is one, and that recipes can hold it.

Whether its methods keep to the contract is for `fw.core.testing` to find out.
"""

from __future__ import annotations

import collections.abc
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from fw.registry.component import Component
from fw.registry.errors import UnfitPlugin

KEPT_SETTINGS = {"frozen": True, "extra": "forbid"}
CODE = (collections.abc.Callable, type)
SETS = (set, frozenset, collections.abc.Set, collections.abc.MutableSet)


def check_component(component: object) -> None:
    """Raise UnfitPlugin unless this is a concrete component class with a name and a kind, whose
    fields can be stored."""
    if not (isinstance(component, type) and issubclass(component, Component)):
        text = textwrap.shorten(repr(component), width=100, placeholder=" ...")
        raise UnfitPlugin(f"fw_components() returned {text}, which is not a Component class")
    name = component.__qualname__
    if not isinstance(getattr(component, "kind", None), str):
        raise UnfitPlugin(f"{name} does not subclass one of the kinds in fw.core.kinds")
    if component.is_kind():
        raise UnfitPlugin(
            f"{name} sets `kind`, so it is a kind and not a component: subclass a kind without "
            "setting it"
        )
    if inspect.isabstract(component):
        missing = ", ".join(sorted(component.__abstractmethods__))
        raise UnfitPlugin(f"{name} is abstract: it does not implement {missing}")
    if not isinstance(getattr(component, "name", None), str):
        raise UnfitPlugin(f"{name} has no `name: ClassVar[str]`")
    for setting, value in KEPT_SETTINGS.items():
        if component.model_config.get(setting) != value:
            raise UnfitPlugin(
                f"{name} changes model_config's {setting}: every component has {setting}={value!r}"
            )
    component.model_rebuild()  # raises where the type of a field cannot be found
    for field, info in component.model_fields.items():
        if isinstance(info.default, list | dict | set | bytearray):
            raise UnfitPlugin(
                f"the default of {name}.{field} can be changed in place: write a tuple or "
                "default_factory"
            )
        types = list(types_in(info.annotation))
        if any(each in SETS for each in types):
            raise UnfitPlugin(
                f"{name}.{field} is a set, whose order differs from run to run: write a tuple"
            )
        if component.model_config.get("arbitrary_types_allowed") or any(
            each in CODE for each in types
        ):
            raise UnfitPlugin(
                f"{name}.{field} cannot be written in a recipe or stored as JSON: its type is "
                f"{info.annotation}"
            )


def types_in(annotation: Any) -> Iterator[type]:
    """The classes that an annotation is made of: `dict` and `int` for `dict[str, int] | None`,
    say."""
    own = get_origin(annotation) or annotation
    if isinstance(own, type):
        yield own
    for inner in get_args(annotation):
        yield from types_in(inner)


def kind_of(component: type[Component]) -> type[Component]:
    """The kind that a component class implements."""
    return next(
        base for base in component.__mro__ if issubclass(base, Component) and base.is_kind()
    )
