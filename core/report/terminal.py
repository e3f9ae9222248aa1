"""The comparison on a terminal or in a pipe: a table, and below it the verdict and which arms have
seen labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from fw.core.messages.escaping import visible
from fw.core.report.tables import label_free, rows, title_of, verdict

BETWEEN = 3
"""Characters between the texts of two columns of a table: a line between blanks."""


def show(result: Mapping[str, Any], console: Console) -> None:
    """Print the comparison, in parts below each other if it is wider than the console."""
    cells = [[visible(cell) for cell in row] for row in rows(result)]
    for header, *body in parts(cells, console.width):
        title = Text(visible(title_of(result)))
        table = Table(title=title, title_justify="left")
        for column in header:
            side: JustifyMethod = "left" if column == "arm" else "right"
            table.add_column(Text(column), justify=side, no_wrap=True)
        for row in body:
            table.add_row(*map(Text, row))
        console.print(table)
    for sentence in verdict(result):
        console.print(visible(sentence), markup=False, highlight=False)
    if free := label_free(result):
        console.print(visible(free), markup=False, highlight=False)


def parts(cells: Sequence[Sequence[str]], width: int) -> Iterator[list[list[str]]]:
    """A table in parts that are no wider than `width` characters if they can be, each with the
    first column."""
    first, *others = (BETWEEN + max(map(len, column)) for column in zip(*cells, strict=True))
    start = 1
    while start < len(cells[0]):
        end, used = start + 1, 1 + first + others[start - 1]
        while end < len(cells[0]) and used + others[end - 1] <= width:
            used += others[end - 1]
            end += 1
        yield [[row[0], *row[start:end]] for row in cells]
        start = end
