"""Where components come from: a plugin, the distribution that installed it, and a hash of its
source."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from fw.registry.api import API


@dataclass(frozen=True)
class Provider:
    """The plugin that a component came from. `api` is the API version that it was made for."""

    plugin: str
    distribution: str = "?"
    version: str = "?"
    api: int = API
    root: Path | None = field(default=None, compare=False)
    """The plugin's package folder or its single file."""
    text: str | None = field(default=None, compare=False, repr=False)
    """The source that was executed, where it is not read from `root`."""

    @staticmethod
    def of(entry: metadata.EntryPoint) -> Provider:
        if entry.dist is None:
            return Provider(entry.name)
        try:
            return Provider(entry.name, entry.dist.name or "?", entry.dist.version or "?")
        except (LookupError, OSError):  # how newer importlib versions say that METADATA is missing
            return Provider(entry.name)

    @property
    def source(self) -> str:
        """The sha256 of the plugin's Python files, by name and content; reads them."""
        if self.text is not None:
            return hashlib.sha256(self.text.encode()).hexdigest()
        if self.root is None:
            return "?"
        if self.root.is_file():
            return hashlib.sha256(self.root.read_bytes()).hexdigest()
        digest = hashlib.sha256()
        for file in sorted(self.root.rglob("*.py")):
            digest.update(file.relative_to(self.root).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()

    def facts(self) -> dict[str, str | int]:
        """What a run records of the plugin."""
        return {
            "distribution": self.distribution,
            "version": self.version,
            "api": self.api,
            "source": self.source,
        }

    def __str__(self) -> str:
        return f"{self.plugin} ({self.distribution} {self.version})"


def root_of(module: str) -> Path | None:
    """The folder of the outermost regular package that holds the imported module, or the
    module's file."""
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        loaded = sys.modules.get(".".join(parts[:depth]))
        file = getattr(loaded, "__file__", None)
        if file is not None:
            return Path(file).parent if hasattr(loaded, "__path__") else Path(file)
    return None
