"""The reference pages say what the code says: what the kind, its contract and its template give
now."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fw.core import kinds
from fw.core.catalogue.facts import kind_facts
from fw.core.catalogue.reference import KINDS, builtins, page, settings, types_page
from fw.registry import Component

PAGES = Path(__file__).parents[1] / "docs/kinds"


@pytest.mark.parametrize("name", KINDS)
def test_the_page_of_a_kind_is_up_to_date(name: str) -> None:
    written = (PAGES / f"{name}.md").read_text("utf-8")
    assert written == page(name, builtins()), "run `make reference`"


def test_the_page_of_what_they_pass_around_is_up_to_date_and_leaves_nothing_unexplained() -> None:
    assert (PAGES / "types.md").read_text("utf-8") == types_page(), "run `make reference`"
    assert "```\n\n\n" not in types_page()


def test_there_is_a_page_for_every_kind_and_no_other() -> None:
    own = {
        each
        for each in vars(kinds).values()
        if isinstance(each, type) and issubclass(each, Component)
    }
    without = {row.type for row in kinds.TABLE if not row.template} | {
        kinds.Steering
    }  # a mode or a rule
    without |= {each for each in own if issubclass(each, kinds.Probe)} - {
        kinds.Probe
    }  # all are on its page
    assert {row.type for row in KINDS.values()} == own - {Component} - without
    assert {path.stem for path in PAGES.iterdir()} == {*KINDS, "types"}


@pytest.mark.parametrize("kind", [row.type for row in KINDS.values()], ids=KINDS)
def test_everything_that_an_author_may_write_is_explained(kind: type[Component]) -> None:
    assert [method["name"] for method in kind_facts(kind)["methods"] if not method["docs"]] == []
    assert "|  |" not in "\n".join(settings(kind))


@pytest.mark.parametrize("name", KINDS)
def test_a_page_shows_what_is_to_be_written_the_contract_and_what_comes_with_fw(name: str) -> None:
    text = (PAGES / f"{name}.md").read_text("utf-8")
    required = text.partition("## To write")[2].partition("\n## ")[0]
    for method in KINDS[name].type.__abstractmethods__:
        assert re.search(rf"^{method}\(", required, re.MULTILINE)
    assert (
        len(
            re.findall(
                r"^\* ", text.partition("## The contract")[2].partition("\n## ")[0], re.MULTILINE
            )
        )
        >= 3
    )
    assert "class Example(" in text
    assert "## Comes with fw" in text
