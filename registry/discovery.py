"""Find plugins by entry point, keep the healthy ones, explain the broken ones.

Every plugin, the built-in one too, is a module registered in the entry-point group `fw`. A plugin that fails in any
way is rolled back whole and listed in `Registry.broken`; it matters only to a recipe that names something no healthy
plugin provides. The variable FW_PLUGINS, a comma-separated list of entry-point names, limits what is loaded.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import metadata

import pluggy

from fw.registry import hookspec
from fw.registry.component import Component

ALLOW_LIST = "FW_PLUGINS"


@dataclass(frozen=True)
class Provider:
    """The plugin that a component came from."""

    plugin: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.plugin} ({self.distribution} {self.version})"


@dataclass(frozen=True)
class Broken:
    """A plugin that was left out, and why."""

    provider: Provider
    reason: str


class UnknownComponent(LookupError):
    """No healthy plugin provides the component that was asked for."""


@dataclass
class Registry:
    """The components of all healthy plugins, by kind and name."""

    components: dict[tuple[str, str], type[Component]] = field(default_factory=dict)
    providers: dict[tuple[str, str], Provider] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)

    def get(self, kind: str, name: str) -> type[Component]:
        """The component class, or UnknownComponent with the nearest names and the broken plugins."""
        if component := self.components.get((kind, name)):
            return component
        known = [component.name for component in self.of_kind(kind)]
        near = difflib.get_close_matches(name, known, n=1)
        reason = f"no {kind} named '{name}'"
        reason += f"; did you mean '{near[0]}'?" if near else ""
        reason += f" (known: {', '.join(known) or 'none'})"
        if self.broken:
            reason += "; these plugins are broken: " + ", ".join(entry.provider.plugin for entry in self.broken)
            reason += " (see `fw plugins`)"
        raise UnknownComponent(reason)

    def of_kind(self, kind: str) -> list[type[Component]]:
        return [self.components[key] for key in sorted(self.components) if key[0] == kind]

    def kinds(self) -> list[str]:
        return sorted({kind for kind, _ in self.components})

    def add(self, provider: Provider, components: Sequence[type[Component]]) -> None:
        """Add all components of one plugin, or raise ValueError and add none."""
        fresh: dict[tuple[str, str], type[Component]] = {}
        for component in components:
            check_component(component)
            key = (component.kind, component.name)
            if key in fresh:
                raise ValueError(f"it brings two components of kind {key[0]} named '{key[1]}'")
            if key in self.providers:
                raise ValueError(f"{key[0]} '{key[1]}' is already provided by {self.providers[key]}")
            fresh[key] = component
        self.components.update(fresh)
        self.providers.update(dict.fromkeys(fresh, provider))


def check_component(component: object) -> None:
    """Raise ValueError unless this is a concrete, named component class of a known kind."""
    if not (isinstance(component, type) and issubclass(component, Component)):
        raise ValueError(f"fw_components() returned {component!r}, which is not a Component class")
    if not isinstance(getattr(component, "kind", None), str) or component.is_kind():
        raise ValueError(f"{component.__qualname__} is not a subclass of one of the kinds in fw.core.kinds")
    if inspect.isabstract(component):
        missing = ", ".join(sorted(component.__abstractmethods__))
        raise ValueError(f"{component.__qualname__} is abstract: it does not implement {missing}")
    if not isinstance(getattr(component, "name", None), str):
        raise ValueError(f"{component.__qualname__} has no `name: ClassVar[str]`")


def discover(entry_points: Iterable[metadata.EntryPoint] | None = None, allow: str | None = None) -> Registry:
    """Load every allowed plugin, the built-in one first, each isolated from the failures of the others."""
    found = metadata.entry_points(group=hookspec.PROJECT) if entry_points is None else entry_points
    allow = os.environ.get(ALLOW_LIST) if allow is None else allow
    allowed = {name.strip() for name in allow.split(",")} if allow else None
    manager = pluggy.PluginManager(hookspec.PROJECT)
    manager.add_hookspecs(hookspec)
    registry = Registry()
    for entry in sorted(found, key=lambda entry: (entry.name != "builtin", entry.name)):
        if allowed is not None and entry.name not in allowed:
            continue
        provider = Provider(
            entry.name, entry.dist.name if entry.dist else "?", entry.dist.version if entry.dist else "?"
        )
        try:
            registry.add(provider, components_of(manager, entry))
        except Exception as error:
            if manager.has_plugin(entry.name):
                manager.unregister(name=entry.name)
            registry.broken.append(Broken(provider, f"{type(error).__name__}: {error}".removeprefix("ValueError: ")))
    return registry


def components_of(manager: pluggy.PluginManager, entry: metadata.EntryPoint) -> list[type[Component]]:
    """Import one plugin, register it with pluggy and call its hook."""
    plugin = entry.load()
    manager.register(plugin, name=entry.name)
    manager.check_pending()
    hook = [impl for impl in manager.hook.fw_components.get_hookimpls() if impl.plugin_name == entry.name]
    if not hook:
        raise ValueError("it has no function fw_components() marked with fw.registry.hookimpl")
    return list(hook[0].function())


@functools.cache
def installed() -> Registry:
    """The registry of everything installed in this environment, discovered once per process."""
    return discover()
