"""What recipes can name, as data: components, kinds and plugins, as `fw plugins --json` prints
them."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from fw.core import kinds
from fw.core.catalogue.example import NoExample, example
from fw.core.catalogue.words import bounds_in_words, inline, type_in_words
from fw.core.errors import FwError
from fw.core.kinds import kind_of
from fw.registry import Broken, Component, Registry, fitness
from fw.registry.api import API
from fw.registry.errors import in_one_line

HOOKS = ("requires", "provides", "own_supervision", "preflight", "identity")
"""What a component of any kind may override."""

STOP = re.compile(r"[.!?](?=\s+[^\sa-z]|$)")
ABBREVIATED = re.compile(r"(?:\b(?:al|cf|eq|eqs|fig|figs|no|p|pp|sec|vs)|e\.g|i\.e)\.$")


class Selection(NamedTuple):
    """What a request selects. `single` is whether the components are to be described in full,
    not listed."""

    components: list[type[Component]]
    broken: list[Broken]
    kind: type[Component] | None = None
    single: bool = False


def find(registry: Registry, name: str | None = None, kind: str | None = None) -> Selection:
    """The components, the kind or the plugin that `name` stands for, within one kind if `kind`
    is given; or FwError."""
    by_name = known_kinds(registry)
    if kind is not None and kind not in by_name:
        raise FwError(f"--kind {kind}: there is no such kind (known: {', '.join(sorted(by_name))})")
    among = [
        component
        for each in sorted(by_name)
        if kind in (None, each)
        for component in registry.of_kind(each)
    ]
    if name is None:
        return Selection(among, registry.broken)
    broken = [entry for entry in registry.broken if entry.provider.plugin == name]
    if matches := [component for component in among if component.name == name]:
        return Selection(matches, broken, single=True)
    if name in by_name and kind in (None, name):
        return Selection(registry.of_kind(name), broken, by_name[name])
    theirs = [each for each in among if registry.providers[each.kind, each.name].plugin == name]
    if theirs or broken:
        return Selection(theirs, broken)
    known = {
        *(each.name for each in among),
        *by_name,
        *(each.plugin for each in registry.plugins()),
    }
    raise FwError(unknown(name, kind, sorted(known), registry))


def known_kinds(registry: Registry) -> dict[str, type[Component]]:
    """fw's own kinds, and those that plugins brought."""
    return {row.type.kind: fitness.kind_of(row.type) for row in kinds.TABLE} | registry.kind_classes


def unknown(name: str, kind: str | None, known: Sequence[str], registry: Registry) -> str:
    near = [f"'{each}'" for each in difflib.get_close_matches(name.lower(), known, n=3)]
    reason = f"there is no {kind or 'component, kind or plugin'} named '{name}'"
    reason += (
        f"; did you mean {' or '.join(near)}?" if near else " (`fw plugins` lists what there is)"
    )
    if registry.broken:
        reason += (
            "; these plugins are broken: "
            f"{', '.join(entry.provider.plugin for entry in registry.broken)}"
        )
    return reason


def document(selection: Selection, registry: Registry) -> dict[str, Any]:
    """All facts about a selection; JSON, with the same keys whatever it is."""
    providers = dict.fromkeys(
        registry.providers[each.kind, each.name] for each in selection.components
    )
    return {
        "api": API,
        "kind": None if selection.kind is None else kind_facts(selection.kind),
        "components": [component_facts(each, registry) for each in selection.components],
        "plugins": [{"plugin": provider.plugin, **provider.facts()} for provider in providers],
        "broken": [broken_facts(entry) for entry in selection.broken],
    }


def broken_facts(entry: Broken) -> dict[str, str]:
    whose = {name: getattr(entry.provider, name) for name in ("plugin", "distribution", "version")}
    return {**whose, "reason": entry.reason, "traceback": entry.traceback}


def component_facts(component: type[Component], registry: Registry) -> dict[str, Any]:
    """`requires` and `provides` are the example's; null, with the reason in `no_example`, where
    there is none."""
    docs = inspect.cleandoc(component.__doc__ or "")
    instance, requires, provides, reason = None, None, None, None
    try:
        instance = example(component, registry)
        requires, provides = sorted(instance.requires), sorted(instance.provides)
    except NoExample as error:
        reason = str(error)
    except Exception as error:
        reason = f"asking for it raised {in_one_line(error)}"
    return {
        "kind": component.kind,
        "name": component.name,
        "plugin": registry.providers[component.kind, component.name].plugin,
        "class": f"{component.__module__}.{component.__qualname__}",
        "summary": summary(docs),
        "docs": docs,
        "version": component.version,
        "fields": fields(component, instance),
        "requires": requires,
        "provides": provides,
        "no_example": reason,
        "snippet": snippet(component, instance, registry),
    }


def summary(docs: str) -> str:
    """The first sentence, in one line."""
    paragraph = " ".join(docs.partition("\n\n")[0].split())
    for stop in STOP.finditer(paragraph):
        sentence = paragraph[: stop.end()]
        inside = sentence.count("(") > sentence.count(")")
        if not inside and not ABBREVIATED.search(sentence):
            return sentence
    return paragraph


def fields(component: type[Component], instance: Component | None = None) -> list[dict[str, Any]]:
    """The fields as JSON. `instance`, if there is one, has the values of default factories."""
    return [
        {
            "name": name,
            "type": type_in_words(info.annotation),
            "bounds": bounds_in_words(info),
            "default": None if info.is_required() else default_of(name, info, instance),
            "required": info.is_required(),
            "description": info.description or "",
        }
        for name, info in component.model_fields.items()
    ]


def default_of(name: str, info: FieldInfo, instance: Component | None) -> Any:
    """The default as a recipe would write it; `...` where it depends on the other fields."""
    if info.default_factory is not None and instance is not None:
        return jsonable(getattr(instance, name))
    try:
        return jsonable(info.get_default(call_default_factory=True))
    except Exception:
        return "..."


def jsonable(value: Any) -> Any:
    if isinstance(value, Component):
        return value.spec()
    if isinstance(value, list | tuple):
        return [jsonable(each) for each in value]
    if isinstance(value, set | frozenset):
        return sorted((jsonable(each) for each in value), key=str)
    return to_jsonable_python(value, inf_nan_mode="strings", fallback=str)


def snippet(component: type[Component], instance: Component | None, registry: Registry) -> str:
    """The component in a recipe, with every field: its default, or an example, or `...` for the
    user to fill in."""
    known = kind_of(component)
    head, first = section(component, registry), "- " if known is not None and known.listed else ""
    lines = [f"name: {inline(component.name)}"]
    for name, info in component.model_fields.items():
        if not info.is_required():
            lines.append(f"{name}: {inline(default_of(name, info, instance))}")
        elif info.examples:
            lines.append(
                f"{name}: {inline(jsonable(info.examples[0]))}  # required; this is an example"
            )
        else:
            lines.append(f"{name}: ...  # required: {type_in_words(info.annotation)}")
    indents = [f"  {first}", *[" " * (2 + len(first))] * (len(lines) - 1)]
    return "\n".join([head, *(indent + line for indent, line in zip(indents, lines, strict=True))])


def section(component: type[Component], registry: Registry) -> str:
    """The key under which a recipe names components of this kind; for a plugin's own kind, a
    field that takes it."""
    from fw.core.recipe.loading import field_model
    from fw.core.recipe.model import Recipe

    known = kind_of(component)
    name = component.kind if known is None else known.section
    if name in Recipe.model_fields:
        return f"{name}:"
    for holder in registry.components.values():
        for field, info in holder.model_fields.items():
            model = field_model(info.annotation)
            if model is not None and model is registry.kind_classes[component.kind]:
                return f"{field}:  # a field of {holder.kind} {holder.name}"
    return f"{name}:  # a field whose type is this kind"


def kind_facts(kind: type[Component]) -> dict[str, Any]:
    """The contract of a kind: what a component of it has to write, and what it may."""
    settings = [name for name in vars(kind) if name in kind.__class_vars__ and name != "kind"]
    return {
        "kind": kind.kind,
        "class": public_name(kind),
        "docs": inspect.cleandoc(kind.__doc__ or ""),
        "methods": [method_facts(kind, name) for name in methods(kind)],
        "settings": {name: jsonable(getattr(kind, name)) for name in settings},
        "fields": fields(kind),
    }


def public_name(kind: type) -> str:
    """Where a plugin's author imports it from."""
    own = getattr(kinds, kind.__name__, None) is kind
    return f"{kinds.__name__ if own else kind.__module__}.{kind.__qualname__}"


def methods(kind: type[Component]) -> Iterable[str]:
    """The public methods and properties of the kind's own, the abstract ones first, then what
    all kinds share."""
    own = [
        name
        for base in kind.__mro__[: kind.__mro__.index(Component)]
        for name in public_members(base)
    ]
    return sorted(
        dict.fromkeys([*own, *HOOKS]), key=lambda name: name not in kind.__abstractmethods__
    )


def public_members(owner: type) -> Iterator[str]:
    for name, value in vars(owner).items():
        if not name.startswith(("_", "model_")) and (
            isinstance(value, property) or inspect.isfunction(value)
        ):
            yield name


def method_facts(kind: type[Component], name: str) -> dict[str, Any]:
    value: Any = inspect.getattr_static(kind, name)
    function = getattr(value, "fget", value)
    signature = re.sub(r"(: |-> )'([^']*)'", r"\1\2", f"{name}{inspect.signature(function)}")
    docs = [vars(base)[name].__doc__ for base in kind.__mro__ if name in vars(base)]
    return {
        "name": name,
        "signature": f"@property {signature}" if isinstance(value, property) else signature,
        "docs": inspect.cleandoc(next(filter(None, docs), "")),
        "required": name in kind.__abstractmethods__,
    }
