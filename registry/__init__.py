"""The plugin host: one base class, one hook, discovery that survives broken plugins."""

from fw.registry.component import Component
from fw.registry.discovery import add_files, discover, installed
from fw.registry.errors import UnfitPlugin, UnknownComponent
from fw.registry.hookspec import hookimpl
from fw.registry.local import LocalPlugin
from fw.registry.neutral import Neutral
from fw.registry.provider import Provider
from fw.registry.registry import Broken, Registry

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
