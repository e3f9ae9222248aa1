"""The plugin host: one base class, one hook, discovery that survives broken plugins."""

from fw.registry.component import Component
from fw.registry.discovery import Broken, Registry, discover, installed
from fw.registry.hookspec import hookimpl

__all__ = ["Broken", "Component", "Registry", "discover", "hookimpl", "installed"]
