"""The picture that a command is asked to write, `-o`."""

from __future__ import annotations

from pathlib import Path

from fw.core.errors import FwError
from fw.core.messages.plain import writing


def check_target(output: Path) -> None:
    """FwError unless a picture can be written there, as far as that can be told before it is
    drawn."""
    with writing(output, "-o"):
        if (
            output.suffix.lower() != ".png"
            or not output.absolute().parent.is_dir()
            or output.is_dir()
        ):
            raise FwError(f"-o {output}: name a .png file in a folder that exists")
