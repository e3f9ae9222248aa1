"""The table of docs/performance.md, between two marks; the words around it stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.speed.row import Row, table

BEGIN, END = "<!-- speed: begin -->", "<!-- speed: end -->"


def write(page: Path, groups: Mapping[str, Sequence[Row]], machine: str) -> None:
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(
        f"{before}{BEGIN}\n{table(groups)}\n\nOn {machine}.\n{END}{after}", encoding="utf-8"
    )
