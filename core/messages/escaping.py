"""Make text of plugins, files and recipes safe to print: it cannot command a terminal, nor be taken
for Markdown.

All text that others wrote passes `visible` (one line) or `visible_lines` on the way to a terminal,
and `markdown` on the way to a report. `rich.text.Text` and `markup=False` keep it from being taken
for rich's own markup.
"""

from __future__ import annotations

import re
import unicodedata

INVISIBLE = {"Cc", "Cf", "Zl", "Zp"}
"""Unicode's categories of invisible characters that move the cursor, break the line or turn the
direction of writing."""

JOINERS = "\u200c\u200d"
"""Invisible, but needed to write words of some languages: they only join letters or keep them
apart."""

MARKS = re.compile(r"[\\`*\[\]<|~]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)")
"""What Markdown reads as a sign wherever it stands. An underscore inside of a word is none."""

OPENING = re.compile(r"^(?=>|#{1,6}(\s|$)|[+-](\s|$)|---)|^(?P<number>\d+)(?=[.)](\s|$))")
"""What Markdown reads as a sign at the beginning of a line."""

INDENT = " " * 7


def visible(text: object) -> str:
    r"""The text on one line. What controls a terminal is written out: `\x1b[2J` for the bytes that
    clear it."""
    return "".join(map(written_out, str(text)))


def visible_lines(text: object) -> str:
    """The same, line by line."""
    return "\n".join(map(visible, str(text).split("\n")))


def entry(text: object) -> str:
    """The same as one entry of a log: further lines are indented, so that none can pass for an
    entry of its own."""
    return f"\n{INDENT}".join(map(visible, str(text).split("\n")))


def markdown(text: object) -> str:
    """The text on one line of Markdown, for a cell of a table or an item of a list, so that it is
    rendered as it is."""
    line = visible(in_utf8(str(text))).strip()
    signs = MARKS.sub(lambda match: "&amp;" if match[0] == "&" else f"\\{match[0]}", line)
    return OPENING.sub(lambda match: f"{match['number'] or ''}\\", signs)


def in_utf8(text: str) -> str:
    """The text without lone surrogates, which UTF-8 cannot hold. Python puts them into a file's
    name for bytes that it cannot decode."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def written_out(letter: str) -> str:
    if letter.isprintable() or letter in JOINERS or unicodedata.category(letter) not in INVISIBLE:
        return letter
    return letter.encode("unicode_escape").decode("ascii")
