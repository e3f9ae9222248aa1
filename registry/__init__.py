"""The plugin host: one base class, one hook, discovery that survives broken plugins."""

from fw.registry.component import Component
from fw.registry.discovery import add_files, discover, installed
from fw.registry.download import Advance, Download
from fw.registry.errors import UnfitPlugin, UnknownComponent
from fw.registry.hookspec import hookimpl
from fw.registry.local import LocalPlugin
from fw.registry.neutral import ANY, Neutral
from fw.registry.provider import Provider
from fw.registry.registry import Broken, Registry
from fw.registry.supervision import CAPTIONS, NOTHING, UNKNOWN, Supervision, labels_of

__all__ = [
    "ANY",
    "CAPTIONS",
    "NOTHING",
    "UNKNOWN",
    "Advance",
    "Broken",
    "Component",
    "Download",
    "LocalPlugin",
    "Neutral",
    "Provider",
    "Registry",
    "Supervision",
    "UnfitPlugin",
    "UnknownComponent",
    "add_files",
    "discover",
    "hookimpl",
    "installed",
    "labels_of",
]
