"""Text of plugins, files and recipes as it may be shown: it cannot command a terminal, nor be taken for Markdown.

Whatever fw shows of others' words passes `visible` (one line) or `visible_lines` on the way to a terminal, and
`markdown` on the way to a report. Rich's own markup is kept out by `rich.text.Text` and `markup=False`.
"""

from __future__ import annotations

import re
import unicodedata

UNSEEN = {"Cc", "Cf", "Zl", "Zp"}
"""Unicode's categories of what moves the cursor, breaks the line or turns the direction, and is not
seen itself."""

JOINERS = "\u200c\u200d"
"""Unseen, and needed to write words of some languages: they only join letters or keep them apart.
"""

MARKS = re.compile(r"[\\`*\[\]<|~]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)")
"""What Markdown reads as a sign wherever it stands. An underscore inside of a word is none."""

OPENING = re.compile(r"^(?=>|#{1,6}(\s|$)|[+-](\s|$)|---)|^(?P<number>\d+)(?=[.)](\s|$))")
"""What Markdown reads as a sign at the beginning of a line."""

INDENT = " " * 7


def visible(text: object) -> str:
    r"""The text on one line, with what controls a terminal written out: `\x1b[2J` for the bytes
    that clear it."""
    return "".join(map(written_out, str(text)))


def visible_lines(text: object) -> str:
    """The same, line by line."""
    return "\n".join(map(visible, str(text).split("\n")))


def entry(text: object) -> str:
    """The same as one entry of a log: further lines are indented, so that none can pass for an
    entry of its own."""
    return f"\n{INDENT}".join(map(visible, str(text).split("\n")))


def markdown(text: object) -> str:
    """The text on one line of a Markdown document, in a cell of a table or an item of a list; it
    shows as it is."""
    line = visible(in_utf8(str(text))).strip()
    signs = MARKS.sub(lambda found: "&amp;" if found[0] == "&" else f"\\{found[0]}", line)
    return OPENING.sub(lambda found: f"{found['number'] or ''}\\", signs)


def in_utf8(text: str) -> str:
    """The text without halves of characters, which a file cannot hold. A file's name has them in
    place of its bytes."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def written_out(letter: str) -> str:
    if letter.isprintable() or letter in JOINERS or unicodedata.category(letter) not in UNSEEN:
        return letter
    return letter.encode("unicode_escape").decode("ascii")
