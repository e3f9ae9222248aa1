"""The table of docs/reliability.md, written between two marks from the drivers' counts."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- torture: begin -->", "<!-- torture: end -->"

TITLES = {
    "recipes": "recipes validated and planned",
    "flips": "flipped bits",
    "kills": "kills",
    "disks": "full disks",
    "soak": "rounds of a soak",
}


def write(page: Path, summary: Mapping[str, Any]) -> None:
    """Put the table where the page has it."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{markdown(summary)}{END}{after}", encoding="utf-8")


def markdown(summary: Mapping[str, Any]) -> str:
    lines = [
        "| driver | tried | faults | what else was counted |",
        "|---|---|---|---|",
        *(row(name, told) for name, told in summary.items() if name in TITLES),
        "",
        f"On {summary['machine']}.",
    ]
    return "\n".join(lines) + "\n"


def row(name: str, told: Mapping[str, Any]) -> str:
    total = sum(told["faults"].values())
    found = [f"{count} {kind}" for kind, count in told["faults"].items() if count]
    faults = f"{total}: {', '.join(found)}" if found else f"0 of {', '.join(told['faults'])}"
    cells = [TITLES[name], f"{told['tried']:,}", faults, "; ".join(counted(told))]
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def counted(told: Mapping[str, Any]) -> Iterator[str]:
    yield f"seed {told['seed']}, {told['minutes']} minutes, {told['CPU minutes']} of CPU"
    for values in (told["seen"], told["facts"]):
        if values:
            yield ", ".join(f"{key} {value}" for key, value in values.items())
    yield from (f"skipped: {reason}" for reason in told["skipped"])


def machine() -> str:
    """What the counts were made on, without what would tell whose machine it is."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "mlflow"))
    system = f"{platform.system()} {platform.machine()}"
    return f"{cores} CPU cores, {system}, Python {platform.python_version()}, {versions}"
