"""The sections as one page, by Jinja2: every text is escaped."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fw.core.messages.escaping import in_utf8, visible_lines
from fw.core.report.page.answer import answer
from fw.core.report.page.clusters import clusters
from fw.core.report.page.curves import curves
from fw.core.report.page.figures import figures
from fw.core.report.page.material import Material
from fw.core.report.page.nearest import nearest
from fw.core.report.page.record import record
from fw.core.report.page.samples import samples
from fw.core.report.page.scores import scores
from fw.core.report.page.steps import steps
from fw.core.report.tables import title_of

PACKAGE = "fw.core.report.page"

SECTIONS: dict[str, tuple[str, Callable[[Material], object]]] = {
    "answer": ("", answer),
    "scores": ("Scores", scores),
    "figures": ("Figures", figures),
    "samples": ("Samples", samples),
    "clusters": ("Classes", clusters),
    "nearest": ("Nearest", nearest),
    "curves": ("Training", curves),
    "steps": ("", steps),
    "record": ("Record", record),
}
"""By the name of its template what each section is called and what makes it, in the order of the
page. It makes None where there is nothing to see."""


def page(material: Material, content: str) -> str:
    """The page as HTML; `content` is the digest of what it is made of."""
    made = {name: section(material) for name, (_, section) in SECTIONS.items()}
    sections = {name: it for name, it in made.items() if it is not None}
    return (
        environment()
        .get_template("page.html")
        .render(
            title=title_of(material.result),
            content=content,
            sections=sections,
            titles={name: SECTIONS[name][0] for name in sections if SECTIONS[name][0]},
        )
    )


@cache
def environment() -> Environment:
    made = Environment(
        loader=PackageLoader(PACKAGE, ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible_text,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["own"] = own
    return made


def visible_text(value: object) -> object:
    """A text of anybody's without letters that nobody sees or that turn the others around."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return visible_lines(in_utf8(value))


def own(name: str) -> Markup:
    """A file of ours, as it is."""
    return Markup((files(PACKAGE) / name).read_text(encoding="utf-8"))
