"""Write the page: the sections, rendered by Jinja2 with every text escaped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fw.core.files.durable import write_text
from fw.core.messages.escaping import in_utf8
from fw.core.report.page.answer import answer
from fw.core.report.page.clusters import clusters
from fw.core.report.page.curves import curves
from fw.core.report.page.figures import figures
from fw.core.report.page.material import Material
from fw.core.report.page.nearest import nearest
from fw.core.report.page.record import record
from fw.core.report.page.samples import samples
from fw.core.report.page.scores import scores

PAGE = "report.html"

SECTIONS: dict[str, Callable[[Material], object]] = {
    "answer": answer,
    "scores": scores,
    "figures": figures,
    "samples": samples,
    "clusters": clusters,
    "nearest": nearest,
    "curves": curves,
    "record": record,
}
"""What makes each section, in the order of the page, by the name of its template. It makes None
where there is nothing to see."""

HEAD = 1000
"""Bytes at the beginning of a page that have its content's digest in them."""


def save_page(material: Material, path: Path) -> None:
    """Write the page. One that was made of the same content already is left as it is."""
    content = digest(material)
    if not made_of(path, content):
        write_text(path, page(material, content))


def page(material: Material, content: str = "") -> str:
    made = {name: section(material) for name, section in SECTIONS.items()}
    text = (
        environment()
        .get_template("page.html")
        .render(
            result=material.result,
            seeds=material.seeds,
            content=content,
            sections={name: section for name, section in made.items() if section is not None},
        )
    )
    return in_utf8(text)


@cache
def environment() -> Environment:
    made = Environment(
        loader=PackageLoader("fw.core.report.page", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["source"] = lambda name: Markup(source(name))  # our own files, not anybody's text
    return made


@cache
def source(name: str) -> str:
    return (files("fw.core.report.page") / name).read_text(encoding="utf-8")


def digest(material: Material) -> str:
    """Of all that decides the page: the record, the products, and these files themselves."""
    tracker = material.recipe.tracker
    beside = {"look", *([] if tracker is None else [tracker.name])}
    products = sorted({stage for arm in material.finished.values() for stage in arm.stages()})
    content: list[Any] = [
        {key: value for key, value in material.result.items() if key not in beside},
        material.recipe.to_yaml(),
        material.plugins,
        {stage: material.store.digest(stage) for stage in products},
        own_files(),
    ]
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()


@cache
def own_files() -> str:
    made = hashlib.sha256()
    for file in sorted(files("fw.core.report.page").iterdir(), key=lambda file: file.name):
        if file.is_file():
            made.update(file.read_bytes())
    return made.hexdigest()


def made_of(path: Path, content: str) -> bool:
    try:
        with path.open("rb") as file:
            return content.encode() in file.read(HEAD)
    except OSError:
        return False
