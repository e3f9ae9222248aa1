"""Plugins as users have them: distributions in a folder on sys.path, files for --plugin, and
`fw` in this process."""

from __future__ import annotations

import contextlib
import io
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import toys

from fw.core.cli import app, guarded
from fw.core.files.layout import MANIFEST
from fw.registry import installed

TOYBOX = """
    import toys
    from fw.registry import hookimpl

    FW_API = 2

    @hookimpl
    def fw_components():
        return toys.COMPONENTS
"""

GUIDANCE = '''
    from typing import ClassVar

    from fw.core.kinds import Guidance
    from fw.registry import hookimpl

    FW_API = 2


    class {name}(Guidance):
        """Half of the prediction is worse."""

        name: ClassVar[str] = "{name}"
        evaluations: ClassVar[int] = 0

        def worse(self, model, x, sigma, condition, good):
            return good / 2


    @hookimpl
    def fw_components():
        return [{name}]
'''


@contextlib.contextmanager
def site(folder: Path) -> Iterator[Path]:
    """A folder on sys.path with the toys as an installed plugin; what was imported from plugins
    is forgotten."""
    folder.mkdir()
    install(folder, "toybox", TOYBOX)
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        installed.cache_clear()
        try:
            yield folder
        finally:
            for name in set(sys.modules) - before:
                if name.startswith("fw_local_") or str(folder) in str(
                    getattr(sys.modules[name], "__file__", "")
                ):
                    del sys.modules[name]
            installed.cache_clear()


def install(
    folder: Path, name: str, source: str, distribution: str | None = None, entry: str | None = None
) -> Path:
    """A one-module distribution of version 1.2 that registers its module as a plugin; returns
    the module's file."""
    file = folder / f"{name}.py"
    file.write_text(textwrap.dedent(source))
    info = folder / f"{(distribution or name).replace('-', '_')}-1.2.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution or name}\nVersion: 1.2\n"
    )
    info.joinpath("entry_points.txt").write_text(f"[fw]\n{entry or name} = {name}\n")
    return file


def write(file: Path, source: str) -> Path:
    """A plugin's file."""
    file.write_text(textwrap.dedent(source), encoding="utf-8")
    return file


def toy_recipe(folder: Path) -> Path:
    return write(folder / "toy.yaml", toys.RECIPE)


class Answer(NamedTuple):
    """What `fw` said and how it ended."""

    code: int
    out: str
    err: str


def fw(*words: str | Path) -> Answer:
    """`fw WORDS` in this process. Like a process of its own, it finds the plugins anew."""
    installed.cache_clear()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code: Any = guarded(lambda: app(list(map(str, words)), prog_name="fw"))
        except SystemExit as ended:
            code = ended.code
    return Answer(code or 0, out.getvalue(), err.getvalue())


def products(out: Path) -> dict[str, bytes]:
    """Every file of every stage in a runs folder, but the manifests."""
    store = out / "store"
    return {
        path.relative_to(store).as_posix(): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file() and path.name != MANIFEST and "locks" not in path.parts
    }
