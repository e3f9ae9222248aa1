"""Plugins in single files, for whoever names them in this process."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fw.core.errors import FwError
from fw.registry import LocalPlugin, UnfitPlugin, add_files, installed


def add_plugins(files: Iterable[Path | str], option: str = "plugins:") -> None:
    """Add the plugins in these files to those that are installed; FwError if one cannot be.

    One that was added before, and has the same text, is left alone: in a notebook a cell is run
    again.
    """
    try:
        brought = [LocalPlugin.read(Path(file).expanduser()) for file in files]
        known = {plugin.digest for plugin in installed().files}
        names = {plugin.path.name for plugin in installed().files}
        for each in brought:
            if each.path.name in names and each.digest not in known:
                raise FwError(
                    f"{option} {each.path}: a file of this name with another text is loaded: "
                    "start Python (the kernel) anew, or give the file another name"
                )
        add_files(installed(), [each for each in brought if each.digest not in known])
    except UnfitPlugin as error:
        raise FwError(f"{option} {error}") from error
