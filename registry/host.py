"""The plugin host: one pluggy manager, which holds every healthy plugin under a name of its own.

Its listing, its tracing and its hook calls are pluggy's own: `list_name_plugin` lists the healthy
plugins, and the blocked ones as None; `add_hookcall_monitoring` sees each plugin's call when it is
loaded.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pluggy

from fw.registry import hookspec
from fw.registry.component import Component
from fw.registry.errors import UnfitPlugin
from fw.registry.provider import Provider

HOOK = hookspec.fw_components.__name__
EXPECTED = f"function {HOOK}() marked with fw.registry.hookimpl"


class Host(pluggy.PluginManager):
    """A pluggy manager that knows fw's hook and calls it for one plugin at a time."""

    def __init__(self) -> None:
        super().__init__(hookspec.PROJECT)
        self.add_hookspecs(hookspec)

    def __reduce__(self) -> tuple[type[Host], tuple[()]]:
        """Another process gets an empty host: a plugin is loaded in the process that calls it."""
        return Host, ()

    def free_name(self, provider: Provider) -> str:
        """The plugin's name, with where it came from if another plugin has that name."""
        taken = dict(self.list_name_plugin())
        numbered = (f"{provider} {number}" for number in itertools.count(2))
        names = itertools.chain((provider.plugin, str(provider)), numbered)
        return next(name for name in names if name and name not in taken)

    def enter(self, plugin: object, name: str) -> None:
        """Register a plugin under a free name, or raise: then `forget` undoes what was done."""
        if plugin is None or not compared_by_identity(plugin):
            raise UnfitPlugin(f"it is a {type(plugin).__name__}, not a module with a {EXPECTED}")
        if (other := self.get_name(plugin)) is not None:
            raise UnfitPlugin(f"it is plugin {other}, which is there already, under another name")
        self.register(plugin, name)
        self.check_pending()

    def components_of(self, plugin: object) -> list[type[Component]]:
        """The component classes that the hooks of one registered plugin return."""
        others = self.get_plugins() - {plugin}
        caller = self.subset_hook_caller(HOOK, remove_plugins=others)
        implementations = caller.get_hookimpls()
        if not implementations:
            raise UnfitPlugin(f"it has no {EXPECTED}")
        if any(each.wrapper or each.hookwrapper for each in implementations):
            raise UnfitPlugin(f"its {HOOK}() wraps those of other plugins, which fw does not take")
        results = caller()
        if len(results) < len(implementations):  # pluggy leaves out what returned None
            results = [None]
        for result in results:
            if not isinstance(result, Iterable):
                raise UnfitPlugin(f"{HOOK}() returned {result!r}, not a list of component classes")
        return [component for result in results for component in result]

    def forget(self, name: str) -> None:
        """Unregister the plugin of this name, if any, and the hooks that no other plugin has."""
        self.unregister(name=name)
        for hook, caller in list(vars(self.hook).items()):
            if not caller.has_spec() and not caller.get_hookimpls():
                delattr(self.hook, hook)


def compared_by_identity(plugin: object) -> bool:
    """Whether the plugin is equal to itself alone, as modules are.

    pluggy compares and hashes plugins; one with an equality of its own would harm others.
    """
    own = type(plugin)
    return own.__eq__ is object.__eq__ and own.__hash__ is object.__hash__
