"""Write report.html where what it is made of has changed."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from fw.core.files.durable import write_text
from fw.core.report.page.material import Material

PAGE = "report.html"

HEAD = 1000
"""Bytes at the beginning of a page that have the digest of its content in them."""


def save_page(material: Material, path: Path) -> None:
    """Write the page. One that was made of the same content already is left as it is."""
    content = digest(material)
    if not made_of(path, content):
        from fw.core.report.page.render import page  # matplotlib and Jinja2 take a second to import

        write_text(path, page(material, content))


def digest(material: Material) -> str:
    """Of all that decides the page: the record, the products, and these files themselves."""
    tracker = material.recipe.tracker
    beside = {"look", *([] if tracker is None else [tracker.name])}
    products = sorted({stage for arm in material.finished.values() for stage in arm.stages()})
    content: list[Any] = [
        {key: value for key, value in material.result.items() if key not in beside},
        material.recipe.to_yaml(),
        list(material.plugins),
        {stage: material.store.digest(stage) for stage in products},
        own_files(),
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@cache
def own_files() -> str:
    made = hashlib.sha256()
    for package in ("fw.core.report", "fw.core.report.page"):  # some sentences are report.md's, too
        for file in sorted(files(package).iterdir(), key=lambda file: file.name):
            if file.is_file():
                made.update(file.read_bytes())
    return made.hexdigest()


def made_of(path: Path, content: str) -> bool:
    try:
        with path.open("rb") as file:
            return content.encode() in file.read(HEAD)
    except OSError:
        return False
