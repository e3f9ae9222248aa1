"""The components of all healthy plugins, by kind and name, and the plugins that were left out."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field

from fw.registry.component import Component
from fw.registry.errors import UnfitPlugin, UnknownComponent
from fw.registry.fitness import check_component, kind_of
from fw.registry.host import Host
from fw.registry.local import LocalPlugin
from fw.registry.provider import Provider


@dataclass(frozen=True)
class Broken:
    """A plugin that was left out, and why."""

    provider: Provider
    reason: str
    traceback: str = ""
    """The traceback of the plugin's own exception; empty where fw refused the plugin."""


@dataclass
class Registry:
    """The components of all healthy plugins, by kind and name."""

    components: dict[tuple[str, str], type[Component]] = field(default_factory=dict)
    providers: dict[tuple[str, str], Provider] = field(default_factory=dict)
    kind_classes: dict[str, type[Component]] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)
    files: list[LocalPlugin] = field(default_factory=list)
    """Plugins that are single files, which worker processes have to load as well."""
    host: Host = field(default_factory=Host, compare=False, repr=False)
    """The healthy plugins themselves."""

    def get(self, kind: str, name: str) -> type[Component]:
        """The component class, or UnknownComponent with the nearest name and broken plugins."""
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
        """The plugin that a component class came from; None if that is not in this registry."""
        key = (component.kind, component.name)
        return self.providers[key] if self.components.get(key) is component else None

    def admit(self, provider: Provider, plugin: object) -> None:
        """Take in a plugin and its components, or raise and keep nothing of either."""
        name = self.host.free_name(provider)
        try:
            self.host.enter(plugin, name)
            self.add(provider, self.host.components_of(plugin))
        except BaseException:
            self.host.forget(name)
            raise

    def add(self, provider: Provider, components: Sequence[type[Component]]) -> None:
        """Add all components of one plugin, or raise UnfitPlugin and add none."""
        fresh: dict[tuple[str, str], type[Component]] = {}
        kinds = dict(self.kind_classes)
        for component in components:
            check_component(component)
            if component._api < provider.api:
                raise UnfitPlugin(
                    f"{component.__qualname__} is written for plugin API {component._api}, and the "
                    f"plugin says {provider.api} (docs/plugins.md lists what changed)"
                )
            key = (component.kind, component.name)
            if key in fresh:
                raise UnfitPlugin(f"it brings two components of kind {key[0]} named '{key[1]}'")
            if key in self.providers:
                other = self.providers[key]
                raise UnfitPlugin(f"{key[0]} '{key[1]}' is already provided by {other}")
            own = kind_of(component)
            known = kinds.setdefault(component.kind, own)
            if own is not known:
                raise UnfitPlugin(
                    f"{component.__qualname__} is of another kind that is also called "
                    f"'{component.kind}': {qualified(own)}, not {qualified(known)}"
                )
            fresh[key] = component
        self.components.update(fresh)
        self.providers.update(dict.fromkeys(fresh, provider))
        self.kind_classes = kinds


def qualified(kind: type[Component]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
