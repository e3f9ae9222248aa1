"""Several runs on one page: the verdict of each, what they differ by, and one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fw.core.report.beside import Group, rows
from fw.core.report.page.render import environment
from fw.core.report.tables import verdict


@dataclass(frozen=True)
class Said:
    """A run, in words."""

    label: str
    sources: Sequence[str]
    sentences: Sequence[str]


@dataclass(frozen=True)
class Compared:
    groups: Sequence[Said]
    across: Sequence[str]
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    not_comparable: Sequence[str]


def page(found: Sequence[Group], across: Sequence[str], not_comparable: Sequence[str]) -> str:
    """The page as HTML."""
    header, *body = rows(found)
    said = [Said(each.label, each.sources, verdict(each.run)) for each in found]
    made = Compared(said, across, header, body, not_comparable)
    return (
        environment()
        .get_template("page.html")
        .render(title="fw compare", content="", sections={"compared": made}, titles={})
    )
