"""Find plugins, keep the healthy ones, explain the broken ones.

Every plugin, the built-in one too, is a module registered in the entry-point group `fw`, or a file
that the user names. An installed plugin that fails in any way is left out whole and listed in
`Registry.broken`; it matters only to a recipe that names something no healthy plugin provides. The
variable FW_PLUGINS, a comma-separated list of entry-point names, limits what is loaded.
"""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib import metadata

from fw.registry import api, lookup
from fw.registry.errors import UnfitPlugin, in_one_line, shortened
from fw.registry.global_state import undisturbed
from fw.registry.hookspec import PROJECT
from fw.registry.host import Host
from fw.registry.local import LocalPlugin
from fw.registry.provider import Provider, root_of
from fw.registry.registry import Broken, Registry

ALLOW_LIST = "FW_PLUGINS"


@functools.cache
def installed() -> Registry:
    """The registry of everything installed in this environment, discovered once per process."""
    return discover()


lookup.installed = installed


def discover(
    entry_points: Iterable[metadata.EntryPoint] | None = None,
    allow: str | None = None,
    host: Host | None = None,
) -> Registry:
    """Load every allowed plugin, the built-in one first, each isolated from the failures of others.

    The caller may hand in an empty `host`, whose tracing then sees how the plugins are called.
    """
    if entry_points is None:
        entry_points = metadata.entry_points(group=PROJECT)
    plugins = sorted(((Provider.of(entry), entry) for entry in entry_points), key=built_in_first)
    allow = os.environ.get(ALLOW_LIST, "") if allow is None else allow
    allowed = {name.strip() for name in allow.split(",")} - {""}
    registry = Registry(host=host or Host())
    for provider, entry in plugins:
        if allowed and provider.plugin not in allowed:
            registry.host.set_blocked(provider.plugin)
            continue
        try:
            with undisturbed():
                plugin = entry.load()
                version = api.made_for(sys.modules[entry.module])
                provider = replace(provider, api=version, root=root_of(entry.module))
                registry.admit(provider, plugin)
        except UnfitPlugin as error:
            registry.broken.append(Broken(provider, shortened(error)))
        except (Exception, SystemExit) as error:
            trace = "".join(traceback.format_exception(error))
            registry.broken.append(Broken(provider, in_one_line(error), trace))
    for name in sorted(allowed - {provider.plugin for provider, _ in plugins}):
        reason = f"{ALLOW_LIST} names it, but it is not installed"
        registry.broken.append(Broken(Provider(name), reason))
    return registry


def built_in_first(plugin: tuple[Provider, metadata.EntryPoint]) -> tuple[bool, str]:
    provider, _ = plugin
    return provider.distribution != PROJECT, str(provider)


def add_files(registry: Registry, plugins: Sequence[LocalPlugin]) -> None:
    """Add local plugins, or raise UnfitPlugin: who names a file wants it to work."""
    for plugin in plugins:
        if any(other.path.name == plugin.path.name for other in registry.files):
            name = plugin.path.name
            raise UnfitPlugin(f"{plugin.path}: a local plugin named {name} is there already")
        try:
            with undisturbed():
                module = plugin.load()
                registry.admit(plugin.provider(module), module)
        except UnfitPlugin as error:
            raise UnfitPlugin(f"{plugin.path}: {shortened(error)}") from None
        except (Exception, SystemExit) as error:
            raise UnfitPlugin(f"{plugin.place(error)}: {in_one_line(error)}") from error
        registry.files.append(plugin)
