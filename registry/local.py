"""A plugin in a single file, without packaging: `fw run recipe.yaml --plugin ./my_guidance.py`.

The file's text is read once and goes with the run: worker processes execute that text, and its hash
enters the keys of stored work, so a file that is edited meanwhile changes nothing that is under
way.
"""

from __future__ import annotations

import hashlib
import linecache
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from fw.registry import api
from fw.registry.component import FILE_HASH
from fw.registry.errors import UnfitPlugin
from fw.registry.provider import Provider


@dataclass(frozen=True)
class LocalPlugin:
    """A plugin's file as it was when it was read."""

    path: Path
    text: str

    @staticmethod
    def read(path: Path) -> LocalPlugin:
        """Read the file, or raise UnfitPlugin."""
        if path.suffix != ".py":
            raise UnfitPlugin(
                f"{path}: a local plugin is one .py file; a package is installed with pip instead"
            )
        try:
            return LocalPlugin(path.absolute(), path.read_bytes().decode("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UnfitPlugin(
                f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}"
            ) from None

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
        linecache.cache[str(self.path)] = (
            len(self.text),
            None,
            self.text.splitlines(keepends=True),
            str(self.path),
        )
        try:
            exec(compile(self.text.encode(), str(self.path), "exec"), module.__dict__)
        except BaseException:
            del sys.modules[self.module]
            raise
        return module

    def provider(self, module: ModuleType) -> Provider:
        made_for = api.made_for(module)
        return Provider(
            self.path.stem, self.path.name, self.digest[:12], made_for, self.path, self.text
        )

    def place(self, error: BaseException) -> str:
        """`my_guidance.py:12`, the innermost line of the file that an exception came through."""
        own = str(self.path)
        trace = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in trace if frame.filename == own]
        if isinstance(error, SyntaxError) and error.filename == own:
            lines.append(error.lineno)
        return f"{own}:{lines[-1]}" if lines else own
