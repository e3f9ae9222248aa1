"""A plugin in a single file, without packaging: `fw run recipe.yaml --plugin ./my_guidance.py`.

The file's text is read once and goes with the run: worker processes execute that text, and its hash enters the keys of
stored work, so a file that is edited meanwhile changes nothing that is under way.
"""

from __future__ import annotations

import hashlib
import linecache
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from fw.registry import api
from fw.registry.component import FILE_HASH
from fw.registry.discovery import Registry, components_of, in_one_line, shortened
from fw.registry.errors import UnfitPlugin
from fw.registry.provider import Provider
from fw.registry.undisturbed import undisturbed


@dataclass(frozen=True)
class LocalPlugin:
    """A plugin's file as it was when it was read."""

    path: Path
    text: str

    @staticmethod
    def read(path: Path) -> LocalPlugin:
        """Read the file, or raise UnfitPlugin."""
        if path.suffix != ".py":
            raise UnfitPlugin(f"{path}: a local plugin is one .py file; a package is installed with pip instead")
        try:
            return LocalPlugin(path.absolute(), path.read_bytes().decode("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UnfitPlugin(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def module(self) -> str:
        """The name that the module has in every process of the run."""
        return f"fw_local_{self.digest[:12]}"

    def load(self) -> ModuleType:
        """The module, executed once per process."""
        if self.module in sys.modules:
            return sys.modules[self.module]
        module = ModuleType(self.module)
        module.__file__ = str(self.path)
        setattr(module, FILE_HASH, self.digest)
        sys.modules[self.module] = module
        linecache.cache[str(self.path)] = (len(self.text), None, self.text.splitlines(keepends=True), str(self.path))
        try:
            exec(compile(self.text.encode(), str(self.path), "exec"), module.__dict__)
        except BaseException:
            del sys.modules[self.module]
            raise
        return module

    def provider(self, module: ModuleType) -> Provider:
        made_for = api.made_for(module)
        return Provider(self.path.stem, self.path.name, self.digest[:12], made_for, self.path, self.text)


def add_files(registry: Registry, plugins: Sequence[LocalPlugin]) -> None:
    """Add the components of local plugins, or raise UnfitPlugin: who names a file wants it to work."""
    for plugin in plugins:
        if any(other.path.name == plugin.path.name for other in registry.files):
            raise UnfitPlugin(f"{plugin.path}: a local plugin named {plugin.path.name} is there already")
        try:
            with undisturbed():
                module = plugin.load()
                registry.add(plugin.provider(module), components_of(module))
        except UnfitPlugin as error:
            raise UnfitPlugin(f"{plugin.path}: {shortened(error)}") from None
        except (Exception, SystemExit) as error:
            raise UnfitPlugin(f"{place(plugin.path, error)}: {in_one_line(error)}") from error
        registry.files.append(plugin)


def place(path: Path, error: BaseException) -> str:
    """`my_guidance.py:12`, the innermost line of the file that an exception came through."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines.append(error.lineno)
    return f"{path}:{lines[-1]}" if lines else str(path)
