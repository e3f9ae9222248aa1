"""Names that MLflow and file systems take, and substitutes for others."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Collection

LENGTH = 250
"""The longest name of a metric, param or tag: MLflow's limit."""
FOLDER_BYTES = 120
"""The longest name of an experiment's folder: file systems take 255, with room for MLflow's own."""
TAKES = r"\w/. -" if os.name == "nt" else r"\w/. :-"
"""The characters of a name: letters, digits, and these."""


def fits(name: str) -> bool:
    """Whether MLflow takes this name for a metric, param or tag."""
    plain = re.fullmatch(rf"[{TAKES}]+", name) is not None and len(name) <= LENGTH
    return plain and posixpath.normpath(name) == name != "." and not name.startswith(("/", ".."))


def fitting(name: str) -> str:
    """The name, or one that MLflow takes: other characters become `_`, six digits tell it apart."""
    if fits(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    parts = [re.sub(rf"[^{TAKES}]+", "_", part) for part in name.split("/")]
    words = "/".join(part for part in parts if part.strip("."))[: LENGTH - 7].strip("/")
    return f"{words.lstrip('.')}-{digest}"


def check(names: Collection[str]) -> None:
    """ValueError with the names that MLflow does not take, and what it takes."""
    if unfit := [name for name in names if not fits(name)]:
        rejected = ", ".join(f"'{name}'" for name in unfit)
        takes = "letters, digits, spaces and / _ - . :, and at most 250 of them"
        raise ValueError(
            f"MLflow does not take {rejected} as the name of a metric; it takes {takes}"
        )


def folder_name(experiment: str) -> str:
    """A folder for an experiment: never one that leads elsewhere, is hidden or is too long."""
    name = re.sub(r"[^\w.-]+", "_", experiment)
    name = "_" * (len(name) - len(name.lstrip("."))) + name.lstrip(".")
    return name.encode()[:FOLDER_BYTES].decode(errors="ignore")
