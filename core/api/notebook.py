"""How a run looks in a notebook: its verdict, its table and its figure."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from fw.core.messages.escaping import visible
from fw.core.report.tables import label_free, rows, title_of, verdict

FIGURE = "arms.png"


def as_html(result: Mapping[str, Any], folder: Path) -> str:
    return "\n".join(
        [
            f"<h4>{text(title_of(result))}</h4>",
            *(f"<p>{text(sentence)}</p>" for sentence in verdict(result)),
            *table(result),
            *([f"<p>{text(free)}</p>"] if (free := label_free(result)) else []),
            *figure(folder / FIGURE),
        ]
    )


def table(result: Mapping[str, Any]) -> Iterator[str]:
    header, *body = rows(result)
    yield "<table>"
    yield f"<tr>{''.join(f'<th>{text(cell)}</th>' for cell in header)}</tr>"
    for row in body:
        yield f"<tr>{''.join(f'<td>{text(cell)}</td>' for cell in row)}</tr>"
    yield "</table>"


def figure(path: Path) -> Iterator[str]:
    """The picture within the page, so that it stays when the notebook is sent to somebody."""
    if path.is_file():
        data = base64.b64encode(path.read_bytes()).decode()
        yield f'<img alt="scores of the arms" src="data:image/png;base64,{data}"/>'


def text(words: str) -> str:
    return escape(visible(words))
