"""Words of others: shown as they are, on a terminal and in Markdown, and never obeyed."""

from __future__ import annotations

import io
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from fw.core.messages.console import say
from fw.core.messages.escaping import INVISIBLE, in_utf8, markdown, visible, visible_lines
from fw.core.report import figures
from fw.core.report import markdown as page
from fw.core.report.runfile import RunFacts
from fw.core.report.series import Lines
from fw.core.report.terminal import show

READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])

HOSTILE = [
    "\x1b[2J\x1b]0;title\x07",
    "<script>alert(1)</script>",
    "<!-- ",
    "[red]x[/red] [link](javascript:x) ![i](http://e.vil/x.png)",
    "a | b",
    "one\ntwo\r\nthree",
    "# heading",
    "1. item",
    "- item",
    "> quote",
    "---",
    "```\ncode",
    "`a|b`",
    "*a* _b_ __c__ ~~d~~ &lt; &#60; \\",
    "\u202eabc\u2066",
    "a\u2028b",
    "$\\frac$",
    "\udce9",
    "a_b*c",
    "<http://e.vil>",
]
words = st.text(st.characters(exclude_categories=())) | st.sampled_from(HOSTILE)
hostile = st.lists(words, min_size=1, max_size=3).map("".join)


def read(source: str) -> tuple[set[str], str]:
    """The kinds of tokens in a Markdown text and the text that a reader sees."""
    tokens = READER.parse(source)
    inline = [child for token in tokens for child in token.children or ()]
    return {token.type for token in [*tokens, *inline]}, "".join(child.content for child in inline)


def meant(text: str) -> str:
    return visible(in_utf8(text)).strip()


@given(hostile)
@example("a\x1b[31m")
def test_nothing_that_is_shown_can_move_the_cursor_or_turn_the_text(text: str) -> None:
    letters = visible(text)
    assert not [
        letter
        for letter in letters
        if unicodedata.category(letter) in INVISIBLE and letter not in "\u200c\u200d"
    ]
    assert visible(letters) == letters


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_plain_text_is_shown_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_only_lines_break_where_lines_are_wanted() -> None:
    assert visible_lines("a\n\tb\r\n\x00") == "a\n\\tb\\r\n\\x00"


@given(hostile)
def test_markdown_shows_the_text_as_it_is_in_an_item_and_starts_nothing(text: str) -> None:
    kinds, seen = read(page.bullets([text]))
    assert kinds <= {
        *["bullet_list_open", "list_item_open", "paragraph_open", "inline", "text", "text_special"],
        *["paragraph_close", "list_item_close", "bullet_list_close"],
    }
    assert seen == meant(text)


@given(hostile, hostile)
def test_markdown_keeps_a_cell_in_its_cell(first: str, second: str) -> None:
    table = f"| a | b |\n|---|---|\n| {markdown(first)} | {markdown(second)} |\n"
    tokens = READER.parse(table)
    cells = [
        token for token, after in zip(tokens[1:], tokens, strict=False) if after.type == "td_open"
    ]
    assert [shown_in(cell) for cell in cells] == [meant(first), meant(second)]
    assert tokens[-1].type == "table_close"


def shown_in(cell: Any) -> str:
    assert {child.type for child in cell.children} <= {"text", "text_special"}
    return "".join(child.content for child in cell.children)


def test_common_names_and_numbers_stay_readable_in_the_source_of_a_report() -> None:
    for text in (
        "fd_pca",
        "self_1.0",
        "1.446 \u00b1 0.123",
        "-0.5",
        "real held-out",
        "fd \u2193",
        "(x 1.00).",
    ):
        assert markdown(text) == text


def result(word: str) -> dict[str, Any]:
    """A run's result in which everything that others name is `word`."""
    score = {"mean": 1.0, "std": 0.1, "values": [1.0, 1.1], "floor": 0.5}
    arm = {
        "status": "finished",
        "metrics": {word: score},
        "real_images": {"held_out": 3},
        "nfe": 2,
        "seconds": 1.0,
        "annotation": {word: 0.5},
        "error": word,
    }
    facts = {
        "recipe": word,
        "seed": 0,
        "baseline": "plain",
        "headline": word,
        "better": {word: "lower"},
        "arms": {"plain": arm, word: {**arm, "metrics": {word: {**score, "mean": 0.5}}}},
        "samples": {"count": 2, "seeds": 2},
        "evaluators": {"x": {"encoder": word, "quality": {word: 0.5}}},
        "warnings": [word],
    }
    RunFacts.model_validate(facts)
    return facts


FORBIDDEN = {
    "html_block",
    "html_inline",
    "link_open",
    "code_inline",
    "fence",
    "em_open",
    "strong_open",
    "s_open",
}


@pytest.mark.parametrize("word", HOSTILE)
def test_a_report_and_a_trackers_note_hold_nothing_that_others_put_in(word: str) -> None:
    for text in (page.markdown(result(word)), page.note(result(word))):
        ours = {"code_inline"}  # names in legends
        tokens = READER.parse(text)
        inline = [child for token in tokens for child in token.children or ()]
        found = {token.type for token in [*tokens, *inline]}
        assert not found & (FORBIDDEN - ours)
        assert {child.content for child in inline if child.type == "code_inline"} <= {
            "real held-out",
            "ami_pixels",
        }
        headings = [token for token in tokens if token.type == "heading_open" and token.tag == "h1"]
        assert len(headings) <= 1
        text.encode("utf-8")


@pytest.mark.parametrize("word", HOSTILE)
def test_a_table_and_a_message_on_a_terminal_hold_nothing_that_others_put_in(word: str) -> None:
    out = io.StringIO()
    console = Console(file=out, width=400)
    show(result(word), console)
    say(console, f"warning: {word}\n[b]{word}[/b]", style="yellow")
    printed = out.getvalue()
    assert "\x1b" not in printed
    assert "\u202e" not in printed
    assert visible_lines(f"[b]{word}[/b]").replace("\n", "\n       ") in printed
    assert not [line for line in printed.splitlines() if line.startswith("two")]


@pytest.mark.parametrize("word", HOSTILE)
def test_figures_draw_the_words_of_others_letter_by_letter(word: str, tmp_path: Path) -> None:
    facts = result(word)
    figures.save_arms_figure(facts["arms"], [word], "plain", tmp_path / "arms.png")
    swept = Lines(word, {word: [(1.0, word)]})
    figures.save_sweep_figure(swept, facts["arms"], [word], "plain", tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").stat().st_size > 1000
