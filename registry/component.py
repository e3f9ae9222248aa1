"""The one base class: fields are recipe keys, methods are behaviour, docstrings are help.

A *kind* (dataset, encoder, guidance, ...) is an abstract subclass that names itself with `kind`. A
field annotated with a kind takes a component of that kind by name: `space: Encoder` reads `pca` or
`{name: pca, dims: 8}`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from fw.registry import lookup
from fw.registry.api import API
from fw.registry.download import Download
from fw.registry.errors import UnknownComponent, in_one_line
from fw.registry.neutral import inside, kept_fields
from fw.registry.once import found_once
from fw.registry.supervision import NOTHING, UNKNOWN, Supervision, names_weights

FILE_HASH = "__fw_file_hash__"
"""Stands in the module of a local plugin."""


class Component(BaseModel):
    """A frozen pydantic model; see the module's docstring."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        ser_json_inf_nan="constants",
    )

    kind: ClassVar[str]
    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Raise it when the same fields give other results: it enters the keys of stored work."""
    _api: ClassVar[int] = API
    """The version of the plugin API that the class is written for; fw itself marks older ones."""

    @field_validator("*")
    @classmethod
    def _fits(cls, value: Any) -> Any:
        """No count or size has more than 64 bits, and libraries in C do not take such numbers."""
        for number in (value, *value) if isinstance(value, tuple | list) else (value,):
            if isinstance(number, int) and not -(2**63) <= number < 2**64:
                raise ValueError("a whole number has at most 64 bits here")
        return value

    @property
    def file_hash(self) -> str | None:
        """The sha256 of the file of a local plugin (`--plugin`), whose keys change whenever the
        file does."""
        return getattr(sys.modules.get(type(self).__module__), FILE_HASH, None)

    @property
    def requires(self) -> frozenset[str]:
        """Capabilities that the rest of the arm has to provide."""
        return frozenset()

    @property
    def provides(self) -> frozenset[str]:
        """Capabilities that this component brings to its arm."""
        return frozenset()

    @property
    def own_supervision(self) -> Supervision:
        """What supervised the weights that this brings from elsewhere, before fw; components in
        its fields speak for themselves.

        Read when a recipe is validated, so it must not need the files. By default it is `unknown`
        where a field names a file, a folder or a model of a hub, and otherwise `nothing`.
        """
        return UNKNOWN if any(names_weights(*entry) for entry in self) else NOTHING

    def preflight(self) -> None:
        """Raise `fw.core.errors.MissingFile` if a folder or weights file that this needs is not
        there.

        Called before a run does any work. Validating and planning do not call it.
        """

    def downloads(self) -> Iterable[Download]:
        """What this needs from outside this machine and `fw fetch` can bring, whether or not it is
        there already. Components in its fields speak for themselves."""
        return ()

    def spec(self) -> dict[str, Any]:
        """The component as a recipe would write it, every default included."""
        return {"name": self.name, **self.model_dump(mode="json")}

    def identity(self) -> dict[str, Any]:
        """What decides the component's results: its spec and version.

        Left out are fields that only say where files lie, and fields at their neutral values
        (registry/neutral.py).
        """
        spec = self.spec()
        code = {"--plugin": self.file_hash} if self.file_hash else {}  # no field can be called that
        return {**identified_fields(self, spec), "version": self.version, **code}

    def within(self) -> Iterator[Component]:
        """The component itself and every component in its fields."""
        yield from components_in(self)

    @classmethod
    def is_kind(cls) -> bool:
        return "kind" in cls.__dict__

    @classmethod
    def chosen_by_name(cls) -> bool:
        """Whether a field of this type takes a component by name: a kind, or a base of several."""
        return isinstance(getattr(cls, "kind", None), str) and not isinstance(
            getattr(cls, "name", None), str
        )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if not cls.chosen_by_name():
            return handler(source)
        return core_schema.with_info_plain_validator_function(
            cls._resolve,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda component: component.spec()
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        if not cls.chosen_by_name():
            return handler(schema)
        definition = f"{cls.__module__}.{cls.__qualname__}:kind"
        if cls in described.get():  # further out; a component may hold one of its own kind
            reference = handler(core_schema.definition_reference_schema(definition))
        else:
            token = described.set(described.get() | {cls})
            try:
                reference = defined(definition, cls._by_name, handler)
            finally:
                described.reset(token)
        return {"allOf": [reference]}  # pydantic writes out a bare reference

    @classmethod
    def _by_name(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The JSON Schema of a component of this kind as recipes write it: a name, or a mapping
        with one."""
        known = lookup.installed().of_kind(cls.kind)
        components = [component for component in known if issubclass(component, cls)]
        names = {"enum": [component.name for component in components]}
        described = [
            defined(f"{each.__module__}.{cls.kind} {each.name}:named", named(each), handler)
            for each in components
        ]
        return {"anyOf": [names, *described]}

    @classmethod
    def _resolve(cls, value: Any, info: ValidationInfo) -> Component:
        """Turn `kmeans` or `{name: kmeans, clusters: 30}` into the component of this kind."""
        if isinstance(value, cls):
            return value
        fields = {"name": value} if isinstance(value, str) else value
        if not isinstance(fields, Mapping) or not isinstance(fields.get("name"), str):
            raise PydanticCustomError(
                "not_a_component",
                "expected the name of a {kind} or a mapping with a 'name'",
                {"kind": cls.kind},
            )
        registry = (info.context or {}).get("registry") or lookup.installed()
        try:
            component = registry.get(cls.kind, fields["name"])
            if not issubclass(component, cls):
                other = (
                    f"of another kind that is also called '{cls.kind}'"
                    if cls.is_kind()
                    else f"no {cls.__name__}"
                )
                raise UnknownComponent(f"{cls.kind} '{component.name}' is {other}")
            rest = {key: entry for key, entry in fields.items() if key != "name"}
            return component.model_validate(rest, context=info.context)
        except UnknownComponent as error:
            raise PydanticCustomError(
                "unknown_component", "{reason}", {"reason": str(error)}
            ) from None
        except ValidationError:
            raise
        except Exception as error:
            raise PydanticCustomError(
                "component_raised",
                "{kind} '{name}' raised {error} while it was built",
                {"kind": cls.kind, "name": fields["name"], "error": in_one_line(error)},
            ) from error


def components_in(value: Any) -> Iterator[Component]:
    """Every component in a field's value or in a model, however deep."""
    if isinstance(value, Component):
        yield value
    for entry in entries(value):
        yield from components_in(entry)


def with_components(value: Any, change: Callable[[Component], Component]) -> Any:
    """The value with every component in it, however deep, changed, those in its fields first; the
    value itself where none becomes another."""
    if isinstance(value, BaseModel):
        held = {name: with_components(entry, change) for name, entry in value}
        others = {name: entry for name, entry in held.items() if entry is not getattr(value, name)}
        whole = value.model_copy(update=others) if others else value
        return change(whole) if isinstance(whole, Component) else whole
    if isinstance(value, Mapping):
        named = {name: with_components(entry, change) for name, entry in value.items()}
        return named if any(named[name] is not entry for name, entry in value.items()) else value
    if isinstance(value, list | tuple):
        listed = [with_components(entry, change) for entry in value]
        same = all(one is other for one, other in zip(listed, value, strict=True))
        return value if same else type(value)(listed)
    return value


def entries(value: Any) -> Iterable[Any]:
    """The values in a model, a mapping or a list; none in anything else."""
    if isinstance(value, BaseModel):
        return [entry for _, entry in value]
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def identified(value: Any, spec: Any) -> Any:
    """The spec of a field's value, with components as identities and without neutral fields."""
    if isinstance(value, Component):
        return identity_of(value)
    if isinstance(value, BaseModel) and isinstance(spec, Mapping):
        return identified_fields(value, spec)
    return inside(value, spec, identified)


def identity_of(component: Component) -> dict[str, Any]:
    """The component's identity, which may depend on files: asked for once in a look (see
    registry/once.py)."""
    _, identity = found_once(
        (Component.identity, id(component)),
        lambda: (component, component.identity()),  # kept with it, so that its id stays its own
    )
    return identity


def identified_fields(model: BaseModel, spec: Mapping[str, Any]) -> dict[str, Any]:
    return kept_fields(model, spec, identified, left_out=lambda marker: True)


described: ContextVar[frozenset[type[Component]]] = ContextVar("described", default=frozenset())
"""Kinds whose JSON Schema is being made."""


Describe = Callable[[CoreSchema, GetJsonSchemaHandler], dict[str, Any]]
"""Gives the JSON Schema of something."""


def named(component: type[Component]) -> Describe:
    """The component as it stands in a recipe: its fields and its `name`."""

    def describe(_: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler.resolve_ref_schema(handler(component.__pydantic_core_schema__))
        return {
            **schema,
            "properties": {"name": {"const": component.name}, **schema.get("properties", {})},
            "required": ["name", *schema.get("required", [])],
        }

    return describe


@dataclass(frozen=True)
class Described:
    """Annotates a type whose JSON Schema is given by a function."""

    describe: Describe

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return self.describe(schema, handler)


def defined(name: str, describe: Describe, handler: GetJsonSchemaHandler) -> dict[str, Any]:
    """A reference to what a JSON Schema has once, among its definitions, under a name."""
    schema: Any = {**TypeAdapter(Annotated[Any, Described(describe)]).core_schema, "ref": name}
    return handler(core_schema.definitions_schema(schema, []))
