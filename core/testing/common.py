"""The contract of every component, whatever its kind."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from hypothesis import strategies as st
from hypothesis.errors import HypothesisException
from pydantic import BaseModel, TypeAdapter, ValidationError

from fw.core.errors import FwError
from fw.core.stages.keys import digest
from fw.core.testing.elsewhere import elsewhere
from fw.core.testing.forall import forall
from fw.core.testing.without_files import without_files
from fw.registry import Component, Download, Registry, Supervision, installed
from fw.registry.fitness import check_component, kind_of

AnyComponent = TypeVar("AnyComponent", bound=Component)


def fit_for_recipes(component: Component) -> None:
    """It is a component class that a plugin may bring"""
    check_component(type(component))


def explained(component: Component) -> None:
    """It has a docstring, which `fw plugins` shows"""
    assert (type(component).__doc__ or "").strip(), "there is none"


def spec_round_trips(component: Component) -> None:
    """Written out as JSON and read back, it is the same component"""
    written = json.dumps(component.spec())
    assert rebuilt(component, json.loads(written)) == component, (
        f"{written} reads back as something else"
    )


def fields_are_checked(component: Component) -> None:
    """Fields drawn from their types and bounds give a component that can be stored, or are
    refused in words"""

    def body(changes: dict[str, Any]) -> None:
        with contextlib.suppress(ValidationError):
            made = changed(component, changes)
            assert rebuilt(made, json.loads(json.dumps(made.spec()))) == made, (
                f"{made!r} does not read back"
            )

    forall(body, changes=changes(type(component)), examples=25)


def unknown_fields_are_refused(component: Component) -> None:
    """A key that it does not have is refused"""
    with contextlib.suppress(ValidationError):
        rebuilt(component, {**component.spec(), "no_such_field": 1})
        raise AssertionError("no_such_field was taken")


def frozen(component: Component) -> None:
    """Its fields cannot be set"""
    for name in type(component).model_fields:
        with contextlib.suppress(ValidationError):
            setattr(component, name, getattr(component, name))
            raise AssertionError(f"{name} can be set")


def same_key_elsewhere(component: Component) -> None:
    """Its key is the same in another process"""
    assert elsewhere(key, component) == key(component), (
        "keys differ: does its identity depend on time, order or memory?"
    )


def capabilities_are_words(component: Component) -> None:
    """What it requires and provides are sets of words"""
    for capabilities in (component.requires, component.provides):
        assert isinstance(capabilities, frozenset), f"{capabilities!r} is not a frozenset"
        assert all(isinstance(each, str) for each in capabilities), (
            f"{set(capabilities)} are not all words"
        )


def supervision_is_said(component: Component) -> None:
    """It says what supervised the weights that it brings, also where their files are not there"""
    for each in (component, without_files(component, "preflight")):
        said = each.own_supervision
        assert isinstance(said, Supervision), f"own_supervision is {said!r}, and no Supervision"


def preflight_speaks(component: Component) -> None:
    """What preflight raises is an FwError, in one sentence"""
    with contextlib.suppress(FwError):
        component.preflight()


def downloads_are_said(component: Component) -> None:
    """It says what `fw fetch` can bring for it, also where its files are not there"""
    for each in (component, without_files(component, "preflight")):
        for download in each.downloads():
            assert isinstance(download, Download), f"{download!r} is no Download"
            assert download.what, f"{download} does not say what it is"
            assert "://" in download.source, f"{download.source} is no web address"
            assert download.place.is_absolute(), f"{download.place} depends on the working folder"


CLAUSES = (
    fit_for_recipes,
    explained,
    spec_round_trips,
    fields_are_checked,
    unknown_fields_are_refused,
    frozen,
    same_key_elsewhere,
    capabilities_are_words,
    supervision_is_said,
    preflight_speaks,
    downloads_are_said,
)


def key(component: Component) -> str:
    return digest(component.identity())


def changed(component: AnyComponent, fields: dict[str, Any]) -> AnyComponent:
    """The component with other fields, as a recipe gets it; ValidationError if they are refused."""
    context = {"registry": registry_of(component)}
    return type(component).model_validate({**component.model_dump(), **fields}, context=context)


def rebuilt(component: Component, spec: Any) -> Component:
    """The component that a recipe would get from the spec, whether or not its plugin is
    installed."""
    kind: TypeAdapter[Component] = TypeAdapter(kind_of(type(component)))
    return kind.validate_python(spec, context={"registry": registry_of(component)})


def registry_of(component: Component) -> Registry:
    """What is installed, the component and those in its fields."""
    registry = Registry(dict(installed().components))
    for part in component.within():
        registry.components[part.kind, part.name] = type(part)
    return registry


def changes(component: type[Component]) -> st.SearchStrategy[dict[str, Any]]:
    """New values for some of the fields, drawn from their types and bounds; models and paths
    stay what they are."""
    drawn = {}
    for name, info in component.model_fields.items():
        if not mentions(info.annotation, (BaseModel, PurePath)):
            drawn[name] = values(info.annotation, info.metadata)
            with contextlib.suppress(HypothesisException):
                drawn[name].validate()
                continue
            del drawn[name]  # hypothesis knows no values of this type
    return st.fixed_dictionaries({}, optional=drawn)


def values(annotation: Any, bounds: Sequence[Any]) -> st.SearchStrategy[Any]:
    """Values of a type within bounds; those of a union hold for each of its members but null."""
    if get_origin(annotation) in (Union, UnionType):
        return st.one_of([values(each, bounds) for each in get_args(annotation)])
    if annotation is NoneType or not bounds:
        return st.from_type(annotation)
    return st.from_type(Annotated[annotation, *bounds])  # type: ignore[arg-type]


def mentions(annotation: Any, types: tuple[type, ...]) -> bool:
    """Whether values of the type may hold one of `types`."""
    inside = isinstance(annotation, type) and issubclass(annotation, types)
    return inside or any(mentions(each, types) for each in get_args(annotation))
