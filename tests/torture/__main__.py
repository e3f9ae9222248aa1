"""All drivers one after the other; their counts as JSON, and as the table of
docs/reliability.md."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from torture import disks, flips, kills, page, recipes, soak
from torture.tally import Tally


def main() -> int:
    """1 if anything was wrong."""
    given = arguments()
    done: list[Tally] = []
    with tempfile.TemporaryDirectory(prefix="torture-") as temporary:
        out = (given.out or Path(temporary)).absolute()
        out.mkdir(parents=True, exist_ok=True)
        for name, drive in drivers(given, out):
            tally = attempted(name, drive, given.seed).finish()
            tally.show()
            done.append(tally)
            summary = {"machine": page.machine(), **{each.name: each.summary() for each in done}}
            if given.json is not None:
                given.json.write_text(json.dumps(summary, indent=1), encoding="utf-8")
    if given.page is not None:
        page.write(given.page, summary)
    return 0 if all(tally.sound for tally in done) else 1


def attempted(name: str, drive: Callable[[], Tally], seed: int) -> Tally:
    """A driver that fails itself is a fault, and no reason to leave out the others."""
    try:
        return drive()
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        tally = Tally(name, seed, ())
        tally.fault("driver failed", f"{type(error).__name__}: {error}"[:300])
        return tally


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    for name, count, what in (
        ("recipes", 20_000, "fuzzed recipes"),
        ("hand", 10_000, "recipes made by hand, at most"),
        ("flips", 1000, "flipped bits"),
        ("kills", 50, "kills"),
        ("disks", 12, "full disks"),
        ("rounds", 6, "rounds of soaking, at least"),
    ):
        parser.add_argument(f"--{name}", type=int, default=count, help=f"{what} [{count}]")
    parser.add_argument("--minutes", type=float, default=20, help="minutes of soaking [20]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a new folder to work in, which is kept")
    parser.add_argument("--json", type=Path, help="where to write the counts")
    parser.add_argument("--page", type=Path, help="the page whose table is written")
    return parser.parse_args()


def drivers(given: argparse.Namespace, out: Path) -> Iterator[tuple[str, Callable[[], Tally]]]:
    """Those that are asked for: a count of 0 leaves one out."""
    seed = given.seed
    if given.recipes or given.hand:
        yield "recipes", lambda: recipes.drive(given.recipes, given.hand, seed, out)
    if given.flips:
        yield "flips", lambda: flips.drive(given.flips, seed, out)
    if given.kills:
        yield "kills", lambda: kills.drive(given.kills, seed, out)
    if given.disks:
        yield "disks", lambda: disks.drive(given.disks, seed, out)
    if given.rounds or given.minutes:
        yield "soak", lambda: soak.drive(given.minutes, given.rounds, seed, out)


if __name__ == "__main__":
    sys.exit(main())
