"""Find plugins by entry point, keep the healthy ones, explain the broken ones.

Every plugin, the built-in one too, is a module registered in the entry-point group `fw`. A plugin that fails
in any way is left out whole and listed in `Registry.broken`; it matters only to a recipe that names something
no healthy plugin provides. The variable FW_PLUGINS, a comma-separated list of entry-point names, limits what
is loaded.
"""

from __future__ import annotations

import difflib
import functools
import os
import sys
import textwrap
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pluggy

from fw.registry import api, hookspec
from fw.registry.component import Component
from fw.registry.errors import UnfitPlugin, UnknownComponent
from fw.registry.fitness import check_component, kind_of
from fw.registry.provider import Provider, root_of
from fw.registry.undisturbed import undisturbed

if TYPE_CHECKING:
    from fw.registry.local import LocalPlugin

ALLOW_LIST = "FW_PLUGINS"


@dataclass(frozen=True)
class Broken:
    """A plugin that was left out, and why."""

    provider: Provider
    reason: str
    traceback: str = ""
    """Where an exception of the plugin's own came from; empty where fw itself refused the plugin."""


@dataclass
class Registry:
    """The components of all healthy plugins, by kind and name."""

    components: dict[tuple[str, str], type[Component]] = field(default_factory=dict)
    providers: dict[tuple[str, str], Provider] = field(default_factory=dict)
    kind_classes: dict[str, type[Component]] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)
    files: list[LocalPlugin] = field(default_factory=list)
    """Plugins that are single files, which worker processes have to load as well."""

    def get(self, kind: str, name: str) -> type[Component]:
        """The component class, or UnknownComponent with the nearest names and the broken plugins."""
        if component := self.components.get((kind, name)):
            return component
        known = [component.name for component in self.of_kind(kind)]
        near = difflib.get_close_matches(name.lower(), known, n=1)
        reason = f"no {kind} named '{name}'"
        reason += f"; did you mean '{near[0]}'?" if near else ""
        reason += f" (known: {', '.join(known) or 'none'})"
        if self.broken:
            broken = ", ".join(entry.provider.plugin for entry in self.broken)
            reason += f"; these plugins are broken: {broken} (see `fw plugins`)"
        raise UnknownComponent(reason)

    def of_kind(self, kind: str) -> list[type[Component]]:
        return [self.components[key] for key in sorted(self.components) if key[0] == kind]

    def kinds(self) -> list[str]:
        return sorted({kind for kind, _ in self.components})

    def plugins(self) -> list[Provider]:
        """The healthy plugins that brought a component, in the order in which they were added."""
        return list(dict.fromkeys(self.providers.values()))

    def provider(self, component: type[Component]) -> Provider | None:
        """The plugin that a component class came from; None where it did not come from this registry."""
        key = (component.kind, component.name)
        return self.providers[key] if self.components.get(key) is component else None

    def add(self, provider: Provider, components: Sequence[type[Component]]) -> None:
        """Add all components of one plugin, or raise UnfitPlugin and add none."""
        fresh: dict[tuple[str, str], type[Component]] = {}
        kinds = dict(self.kind_classes)
        for component in components:
            check_component(component)
            key = (component.kind, component.name)
            if key in fresh:
                raise UnfitPlugin(f"it brings two components of kind {key[0]} named '{key[1]}'")
            if key in self.providers:
                raise UnfitPlugin(f"{key[0]} '{key[1]}' is already provided by {self.providers[key]}")
            own = kind_of(component)
            known = kinds.setdefault(component.kind, own)
            if own is not known:
                raise UnfitPlugin(
                    f"{component.__qualname__} is of another kind that is also called '{component.kind}': "
                    f"{qualified(own)}, not {qualified(known)}"
                )
            fresh[key] = component
        self.components.update(fresh)
        self.providers.update(dict.fromkeys(fresh, provider))
        self.kind_classes = kinds


def qualified(kind: type[Component]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def discover(entry_points: Iterable[metadata.EntryPoint] | None = None, allow: str | None = None) -> Registry:
    """Load every allowed plugin, the built-in one first, each isolated from the failures of the others."""
    found = metadata.entry_points(group=hookspec.PROJECT) if entry_points is None else entry_points
    plugins = sorted(((Provider.of(entry), entry) for entry in found), key=built_in_first)
    allow = os.environ.get(ALLOW_LIST, "") if allow is None else allow
    allowed = {name.strip() for name in allow.split(",")} - {""}
    registry = Registry()
    for provider, entry in plugins:
        if allowed and provider.plugin not in allowed:
            continue
        try:
            with undisturbed():
                plugin = entry.load()
                module = sys.modules[entry.module]
                provider = replace(provider, api=api.made_for(module), root=root_of(entry.module))
                registry.add(provider, components_of(plugin))
        except UnfitPlugin as error:
            registry.broken.append(Broken(provider, shortened(error)))
        except (Exception, SystemExit) as error:
            trace = "".join(traceback.format_exception(error))
            registry.broken.append(Broken(provider, in_one_line(error), trace))
    for name in sorted(allowed - {provider.plugin for provider, _ in plugins}):
        registry.broken.append(Broken(Provider(name), f"{ALLOW_LIST} names it, but it is not installed"))
    return registry


def built_in_first(plugin: tuple[Provider, metadata.EntryPoint]) -> tuple[bool, str]:
    provider, _ = plugin
    return provider.distribution != hookspec.PROJECT, str(provider)


def shortened(text: object) -> str:
    """The text on one line."""
    return textwrap.shorten(str(text), width=300, placeholder=" ...")


def in_one_line(error: BaseException) -> str:
    reason = shortened(error)
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


def components_of(plugin: Any) -> list[type[Component]]:
    """Call the hook of one plugin; each has a pluggy host of its own, so a failure leaves nothing."""
    host = pluggy.PluginManager(hookspec.PROJECT)
    host.add_hookspecs(hookspec)
    host.register(plugin)
    host.check_pending()
    hooks = host.hook.fw_components.get_hookimpls()
    if not hooks:
        raise UnfitPlugin("it has no function fw_components() marked with fw.registry.hookimpl")
    components = hooks[0].function()
    if not isinstance(components, Iterable):
        raise UnfitPlugin(f"fw_components() returned {components!r}, not a list of component classes")
    return list(components)


@functools.cache
def installed() -> Registry:
    """The registry of everything installed in this environment, discovered once per process."""
    return discover()
