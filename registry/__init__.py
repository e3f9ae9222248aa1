"""The plugin host: one base class, one hook, discovery that survives broken plugins."""

from fw.registry.component import Component
from fw.registry.discovery import Broken, Registry, discover, installed
from fw.registry.errors import UnfitPlugin, UnknownComponent
from fw.registry.hookspec import hookimpl
from fw.registry.local import LocalPlugin, add_files
from fw.registry.neutral import Neutral
from fw.registry.provider import Provider

__all__ = [
    "Broken",
    "Component",
    "LocalPlugin",
    "Neutral",
    "Provider",
    "Registry",
    "UnfitPlugin",
    "UnknownComponent",
    "add_files",
    "discover",
    "hookimpl",
    "installed",
]
