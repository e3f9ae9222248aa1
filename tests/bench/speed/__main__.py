"""Measure groups, print their table, and write it as JSON and into a page.

What the JSON has of other groups, measured on the same machine, stays in it and in the tables.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch

from bench.speed import (
    clusters,
    cuda,
    guidance,
    metrics,
    page,
    planning,
    sampling,
    starting,
    teams,
    training,
    views,
)
from bench.speed.machine import machine
from bench.speed.row import Row, table

GROUPS: Mapping[str, Callable[[], Iterable[Row]]] = {
    "training": training.rows,
    "sampling": sampling.rows,
    "guidance": guidance.rows,
    "clusters": clusters.rows,
    "metrics": metrics.rows,
    "views": views.rows,
    "planning": planning.rows,
    "starting": starting.rows,
    "teams": teams.rows,
    "cuda": cuda.rows,
}


def main(words: Sequence[str] | None = None) -> int:
    given = arguments(words)
    torch.set_num_threads(1)
    done = {} if given.json is None else earlier(given.json)
    for name in given.only:
        print(f"measuring {name}", file=sys.stderr)
        done[name] = list(GROUPS[name]())
        if given.json is not None:
            write_json(given.json, done)
    done = {name: done[name] for name in GROUPS if name in done}
    print(f"{table(done)}\n\nOn {machine()}.")
    if given.page is not None:
        page.write(given.page, done, machine())
    return 0


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.speed", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=list(GROUPS), default=list(GROUPS), help="these groups [all]"
    )
    parser.add_argument("--json", type=Path, help="where what was measured is kept")
    parser.add_argument("--page", type=Path, help="the page whose table is written")
    return parser.parse_args(words)


def earlier(file: Path) -> dict[str, list[Row]]:
    """What was measured on this machine before: groups that are not measured now stay."""
    if not file.exists():
        return {}
    document = json.loads(file.read_text(encoding="utf-8"))
    if document["machine"] != machine():
        return {}
    return {name: list(map(Row.read, rows)) for name, rows in document["groups"].items()}


def write_json(file: Path, groups: Mapping[str, Iterable[Row]]) -> None:
    """Written after each group, so that a group that fails costs no other."""
    summaries = {name: [row.summary() for row in rows] for name, rows in groups.items()}
    text = json.dumps({"machine": machine(), "groups": summaries}, indent=1)
    file.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
